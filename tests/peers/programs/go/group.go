package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const partitions = 6

// protocol gives the options of a variant: eager and cooperative are the classic protocol, consumer is KIP-848, which
// this client has behind a value of its context.
func protocol(ctx context.Context, variant string) []kgo.Opt {
	switch variant {
	case "consumer":
		return []kgo.Opt{kgo.WithContext(context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true))} //nolint:staticcheck
	case "cooperative":
		return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.HeartbeatInterval(500 * time.Millisecond)}
	default:
		return []kgo.Opt{kgo.Balancers(kgo.RangeBalancer()), kgo.HeartbeatInterval(500 * time.Millisecond)}
	}
}

// source produces numbers, about 200 a second, until it is stopped.
type source struct {
	stop chan struct{}
	done chan error
}

func startSource(ctx context.Context, broker []kgo.Opt, topic string, l *ledger) (*source, error) {
	producer, err := client(broker, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	s := &source{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer producer.Close()
		for number := 0; ; number++ {
			select {
			case <-s.stop:
				s.done <- nil
				return
			case <-time.After(5 * time.Millisecond):
			}
			text := strconv.Itoa(number)
			record := &kgo.Record{Topic: topic, Partition: int32(number % partitions), Value: []byte(text)}
			if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
				s.done <- err
				return
			}
			l.addProduced(text)
		}
	}()
	return s, nil
}

func (s *source) finish() error { close(s.stop); return <-s.done }

// member consumes; it commits what it is about to give away, and when it leaves.
type member struct {
	client   *kgo.Client
	mu       sync.Mutex
	assigned []int32
	failure  error
	leaving  context.CancelFunc
	done     chan struct{}
}

func join(ctx context.Context, broker []kgo.Opt, group, topic string, l *ledger, more ...kgo.Opt) (*member, error) {
	m := &member{done: make(chan struct{})}
	var err error
	m.client, err = client(broker, append(more, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) {
			m.mu.Lock()
			m.assigned = append(m.assigned, given[topic]...)
			m.mu.Unlock()
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, taken map[string][]int32) {
			if err := cl.CommitUncommittedOffsets(ctx); err != nil {
				m.fail(err)
			}
			m.mu.Lock()
			m.assigned = slices.DeleteFunc(m.assigned, func(p int32) bool { return slices.Contains(taken[topic], p) })
			m.mu.Unlock()
		}),
	)...)
	if err != nil {
		return nil, err
	}
	ctx, m.leaving = context.WithCancel(ctx)
	go m.consume(ctx, l)
	return m, nil
}

func (m *member) fail(err error) { m.mu.Lock(); m.failure = err; m.mu.Unlock() }

func (m *member) consume(ctx context.Context, l *ledger) {
	defer close(m.done)
	for {
		fetched := m.client.PollFetches(ctx)
		if ctx.Err() != nil {
			break
		}
		if err := fetched.Err(); err != nil {
			m.fail(err)
			break
		}
		fetched.EachRecord(func(r *kgo.Record) { l.addConsumed(string(r.Value)) })
		m.client.AllowRebalance()
	}
	if err := m.client.CommitUncommittedOffsets(context.Background()); err != nil {
		m.fail(err)
	}
	m.client.CloseAllowingRebalance()
}

func (m *member) leave() error {
	m.leaving()
	<-m.done
	return m.failure
}

// shared tells whether the partitions are all given away, each to one member, in these shares.
func shared(sizes []int, members ...*member) func() (bool, error) {
	return func() (bool, error) {
		var all []int32
		var shares []int
		for _, m := range members {
			m.mu.Lock()
			all, shares = append(all, m.assigned...), append(shares, len(m.assigned))
			err := m.failure
			m.mu.Unlock()
			if err != nil {
				return false, err
			}
		}
		slices.Sort(shares)
		slices.Sort(all)
		return slices.Equal(shares, sizes) && len(slices.Compact(all)) == partitions, nil
	}
}

// group lets three members join one after the other and one leave, while records flow: each is consumed exactly once,
// and whoever comes later goes on where the others stopped.
func group(ctx context.Context, broker []kgo.Opt, variant string) error {
	topic, name, l := unique("group"), unique("readers"), newLedger()
	if err := createTopics(ctx, broker, partitions, topic); err != nil {
		return err
	}
	numbers, err := startSource(ctx, broker, topic, l)
	if err != nil {
		return err
	}
	var members []*member
	for count, sizes := range [][]int{{6}, {3, 3}, {2, 2, 2}} {
		m, err := join(ctx, broker, name, topic, l, protocol(ctx, variant)...)
		if err != nil {
			return err
		}
		members = append(members, m)
		if err := eventually(fmt.Sprintf("%d members have %d each", count+1, sizes[0]), shared(sizes, members...)); err != nil {
			return err
		}
	}
	if err := describe(ctx, broker, name, variant, 3); err != nil {
		return err
	}
	if err := first(members[0].leave(), eventually("two members are left, three each", shared([]int{3, 3}, members[1:]...)),
		numbers.finish(), eventually("all is consumed", l.settled), members[1].leave(), members[2].leave(), l.check()); err != nil {
		return err
	}
	return resume(ctx, broker, name, topic, variant, len(l.produced))
}

func describe(ctx context.Context, broker []kgo.Opt, name, variant string, members int) error {
	cl, err := client(broker)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if variant == "consumer" {
		described, err := adm.DescribeConsumerGroups(ctx, name)
		return first(err, expect("members described", len(described[name].Members), members))
	}
	described, err := adm.DescribeGroups(ctx, name)
	return first(err, expect("state", described[name].State, "Stable"), expect("members described", len(described[name].Members), members))
}

// resume starts a new member in the group, now empty: it continues at the committed offsets.
func resume(ctx context.Context, broker []kgo.Opt, name, topic, variant string, before int) error {
	l := newLedger()
	numbers, err := startSource(ctx, broker, topic, l)
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	if err := numbers.finish(); err != nil {
		return err
	}
	m, err := join(ctx, broker, name, topic, l, protocol(ctx, variant)...)
	if err != nil {
		return err
	}
	if err := first(eventually("what came meanwhile is consumed", l.settled), m.leave(), l.check()); err != nil {
		return err
	}
	cl, err := client(broker)
	if err != nil {
		return err
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, name)
	sum := int64(0)
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	return first(err, expect("sum of the committed offsets", sum, int64(before+len(l.produced))))
}
