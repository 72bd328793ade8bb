package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// staticMember consumes under a name that outlives it (KIP-345).
type staticMember struct {
	client     *kgo.Client
	mu         sync.Mutex
	assigned   []int32
	rebalances int
	values     []string
	failure    error
}

func joinStatic(ctx context.Context, broker []kgo.Opt, name, group, topic string) (*staticMember, error) {
	m := &staticMember{}
	change := func(_ context.Context, cl *kgo.Client, changed map[string][]int32) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(changed[topic]) > 0 {
			m.rebalances++
		}
	}
	var err error
	m.client, err = client(broker, kgo.InstanceID(name), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(20*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.AutoCommitInterval(100*time.Millisecond),
		kgo.OnPartitionsAssigned(func(ctx context.Context, cl *kgo.Client, given map[string][]int32) {
			change(ctx, cl, given)
			m.mu.Lock()
			m.assigned = append(m.assigned, given[topic]...)
			slices.Sort(m.assigned)
			m.mu.Unlock()
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, taken map[string][]int32) {
			change(ctx, cl, taken)
			m.mu.Lock()
			m.assigned = slices.DeleteFunc(m.assigned, func(p int32) bool { return slices.Contains(taken[topic], p) })
			m.mu.Unlock()
		}))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			fetched := m.client.PollFetches(ctx)
			if fetched.IsClientClosed() || ctx.Err() != nil {
				return
			}
			m.mu.Lock()
			fetched.EachRecord(func(r *kgo.Record) { m.values = append(m.values, string(r.Value)) })
			fetched.EachError(func(_ string, _ int32, err error) { m.failure = err })
			m.mu.Unlock()
		}
	}()
	return m, nil
}

func (m *staticMember) now() (assigned []int32, rebalances int, values []string, failure error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.assigned), m.rebalances, slices.Clone(m.values), m.failure
}

func balanced(members ...*staticMember) func() (bool, error) {
	return func() (bool, error) {
		for _, m := range members {
			if assigned, _, _, err := m.now(); err != nil || len(assigned) != 2 {
				return false, err
			}
		}
		return true, nil
	}
}

// static restarts one of two static members, and nobody else notices; then a second process takes its name.
func static(ctx context.Context, broker []kgo.Opt, _ string) error {
	topic, group := unique("static"), unique("readers")
	if err := createTopics(ctx, broker, 4, topic); err != nil {
		return err
	}
	one, err1 := joinStatic(ctx, broker, "one", group, topic)
	two, err2 := joinStatic(ctx, broker, "two", group, topic)
	if err := first(err1, err2); err != nil {
		return err
	}
	if err := eventually("two partitions each", balanced(one, two)); err != nil {
		return err
	}
	before, _, _, _ := one.now()
	_, rebalances, _, _ := two.now()
	one.client.Close() // a static member does not leave the group
	if err := sendLetters(ctx, broker, topic); err != nil {
		return err
	}
	again, err := joinStatic(ctx, broker, "one", group, topic)
	if err != nil {
		return err
	}
	if err := eventually("the restarted member has two again", balanced(again, two)); err != nil {
		return err
	}
	if err := eventually("all is consumed", func() (bool, error) {
		_, _, mine, _ := again.now()
		_, _, theirs, _ := two.now()
		all := append(mine, theirs...)
		slices.Sort(all)
		return slices.Equal(all, []string{"a", "b", "c", "d"}), nil
	}); err != nil {
		return err
	}
	after, _, _, _ := again.now()
	_, now, _, _ := two.now()
	if err := first(expect("the same partitions", after, before), expect("rebalances that the other saw", now-rebalances, 0)); err != nil {
		return err
	}
	return takeName(ctx, broker, group, topic, again, two)
}

// takeName starts a second "one": the first is fenced. Members with a name leave only when an operator says so.
func takeName(ctx context.Context, broker []kgo.Opt, group, topic string, old, other *staticMember) error {
	newer, err := joinStatic(ctx, broker, "one", group, topic)
	if err != nil {
		return err
	}
	if err := first(eventually("the newcomer has the partitions", balanced(newer, other)),
		eventually("the old member is fenced", func() (bool, error) {
			_, _, _, err := old.now()
			return errors.Is(err, kerr.FencedInstanceID), nil
		})); err != nil {
		return err
	}
	for _, m := range []*staticMember{old, newer, other} {
		m.client.Close()
	}
	cl, err := client(broker)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	left, err := adm.LeaveGroup(ctx, kadm.LeaveGroup(group).InstanceIDs("one", "two"))
	described, err2 := adm.DescribeGroups(ctx, group)
	return first(err, left.Error(), err2, expect("state after both were removed", described[group].State, "Empty"))
}

func sendLetters(ctx context.Context, broker []kgo.Opt, topic string) error {
	producer, err := client(broker, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer producer.Close()
	for number, letter := range []string{"a", "b", "c", "d"} {
		record := &kgo.Record{Topic: topic, Partition: int32(number), Value: []byte(letter)}
		if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}
