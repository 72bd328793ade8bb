package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const inputs, batch = 200, 25

func transformer(broker []kgo.Opt, source, group, name string) (*kgo.GroupTransactSession, error) {
	return kgo.NewGroupTransactSession(append(append([]kgo.Opt{}, broker...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(source),
		kgo.TransactionalID(name), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(),
		kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))...)
}

// oneBatch begins a transaction and writes the next inputs, times ten; it returns how many there were.
func oneBatch(ctx context.Context, session *kgo.GroupTransactSession, target string) (int, error) {
	fetched := session.PollRecords(ctx, batch)
	if err := first(fetched.Err(), session.Begin()); err != nil {
		return 0, err
	}
	var outputs []*kgo.Record
	for _, record := range fetched.Records() {
		number, err := strconv.Atoi(string(record.Value))
		if err != nil {
			return 0, err
		}
		outputs = append(outputs, &kgo.Record{Topic: target, Value: []byte(strconv.Itoa(number * 10))})
	}
	return len(outputs), session.ProduceSync(ctx, outputs...).FirstErr()
}

// end commits or aborts, and demands that this is what happened.
func end(ctx context.Context, session *kgo.GroupTransactSession, how kgo.TransactionEndTry) error {
	committed, err := session.End(ctx, how)
	return first(err, expect("committed", committed, bool(how)))
}

// transform consumes, transforms and produces, with the offsets in the same transaction. One transaction is aborted, one
// is left open by a process that dies; the output has each input exactly once.
func transform(ctx context.Context, broker []kgo.Opt, _ string) error {
	source, target, group, name := unique("inputs"), unique("outputs"), unique("transformers"), unique("transformer")
	if err := first(createTopics(ctx, broker, 3, source, target), fill(ctx, broker, source)); err != nil {
		return err
	}
	died, err := transformer(broker, source, group, name)
	if err != nil {
		return err
	}
	done := 0
	for _, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		count, err := oneBatch(ctx, died, target)
		if err = first(err, end(ctx, died, how)); err != nil {
			return err
		}
		if how == kgo.TryCommit {
			done += count
		}
	}
	open, err := oneBatch(ctx, died, target)
	if err = first(err, expect("some are committed, some in an open transaction", done > 0 && open > 0, true)); err != nil {
		return err
	}
	died.Close() // neither commit nor abort

	second, err := transformer(broker, source, group, name)
	if err != nil {
		return err
	}
	defer second.Close()
	for done < inputs {
		count, err := oneBatch(ctx, second, target)
		if err = first(err, end(ctx, second, kgo.TryCommit)); err != nil {
			return err
		}
		done += count
	}
	if err := expectSoon("outputs", func() ([]int, error) {
		values, err := visible(ctx, broker, target, kgo.ReadCommitted())
		return numbers(values), err
	}, wantedOutputs()); err != nil {
		return err
	}
	offsets, err := kadm.NewClient(second.Client()).FetchOffsets(ctx, group)
	sum := int64(0)
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	return first(err, expect("sum of the committed offsets", sum, int64(inputs)))
}

func fill(ctx context.Context, broker []kgo.Opt, topic string) error {
	producer, err := client(broker, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer producer.Close()
	var records []*kgo.Record
	for number := range inputs {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(number % 3), Value: []byte(fmt.Sprint(number))})
	}
	return producer.ProduceSync(ctx, records...).FirstErr()
}

func numbers(values []string) []int {
	var all []int
	for _, value := range values {
		number, _ := strconv.Atoi(value)
		all = append(all, number)
	}
	slices.Sort(all)
	return all
}

func wantedOutputs() []int {
	var all []int
	for number := range inputs {
		all = append(all, number*10)
	}
	return all
}
