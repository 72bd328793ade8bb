package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// visible gives all values of a topic that a reader of this isolation level sees now, sorted.
func visible(ctx context.Context, broker []kgo.Opt, topic string, level kgo.IsolationLevel) ([]string, error) {
	reader, err := client(broker, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	adm := kadm.NewClient(reader)
	ends, err := adm.ListEndOffsets(ctx, topic)
	if level == kgo.ReadCommitted() {
		ends, err = adm.ListCommittedOffsets(ctx, topic)
	}
	if err = first(err, ends.Error()); err != nil {
		return nil, err
	}
	open := map[int32]int64{} // partitions of which the last record has not come yet
	for partition, end := range ends[topic] {
		if end.Offset > 0 {
			open[partition] = end.Offset
		}
	}
	values := []string{}
	for len(open) > 0 {
		fetched := reader.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return nil, err
		}
		for _, record := range fetched.Records() {
			if !record.Attrs.IsControl() {
				values = append(values, string(record.Value))
			}
			if record.Offset+1 >= open[record.Partition] {
				delete(open, record.Partition)
			}
		}
	}
	slices.Sort(values)
	return values, nil
}

func send(ctx context.Context, producer *kgo.Client, topic string, values ...string) error {
	var records []*kgo.Record
	for number, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(number % 2), Value: []byte(value)})
	}
	return producer.ProduceSync(ctx, records...).FirstErr()
}

// transactions shows that what a transaction writes is seen after the commit and never after an abort, and that a later
// producer with the same transactional id fences the earlier one.
func transactions(ctx context.Context, broker []kgo.Opt, _ string) error {
	topic, name := unique("transactions"), unique("payments")
	if err := createTopics(ctx, broker, 2, topic); err != nil {
		return err
	}
	producer, err := client(broker, kgo.TransactionalID(name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer producer.Close()
	sees := func(when string, level kgo.IsolationLevel, wanted ...string) error {
		slices.Sort(wanted)
		return expectSoon(when, func() ([]string, error) { return visible(ctx, broker, topic, level) }, append([]string{}, wanted...))
	}
	end := func(how kgo.TransactionEndTry) error { return producer.EndTransaction(ctx, how) }
	committed, uncommitted := kgo.ReadCommitted(), kgo.ReadUncommitted()

	if err := first(producer.BeginTransaction(), send(ctx, producer, topic, "a", "b", "c"),
		sees("read_committed, open", committed),
		sees("read_uncommitted, open", uncommitted, "a", "b", "c"),
		end(kgo.TryCommit),
		sees("read_committed, committed", committed, "a", "b", "c"),
		producer.BeginTransaction(), send(ctx, producer, topic, "x", "y", "z"), end(kgo.TryAbort),
		sees("read_uncommitted, aborted", uncommitted, "a", "b", "c", "x", "y", "z"),
		sees("read_committed, aborted", committed, "a", "b", "c")); err != nil {
		return err
	}
	wanted := []string{"a", "b", "c"}
	for number := range 20 { // one after the other, without a pause
		values, how := []string{fmt.Sprint("n", number), fmt.Sprint("m", number)}, kgo.TryCommit
		if number%4 == 3 {
			how = kgo.TryAbort
		} else {
			wanted = append(wanted, values...)
		}
		if err := first(producer.BeginTransaction(), send(ctx, producer, topic, values...), end(how)); err != nil {
			return err
		}
	}
	if err := sees("of twenty, the committed", committed, wanted...); err != nil {
		return err
	}
	return first(fence(ctx, broker, producer, name, topic),
		sees("after the fence, read_committed", committed, append(wanted, "from the newer")...))
}

func fence(ctx context.Context, broker []kgo.Opt, older *kgo.Client, name, topic string) error {
	if err := first(older.BeginTransaction(), send(ctx, older, topic, "from the older")); err != nil {
		return err
	}
	newer, err := client(broker, kgo.TransactionalID(name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer newer.Close()
	if err := first(newer.BeginTransaction(), send(ctx, newer, topic, "from the newer")); err != nil {
		return err
	}
	refused := older.EndTransaction(ctx, kgo.TryCommit)
	fenced := errors.Is(refused, kerr.ProducerFenced) || errors.Is(refused, kerr.InvalidProducerEpoch)
	return first(expect(fmt.Sprint("the older producer is fenced: ", refused), fenced, true), newer.EndTransaction(ctx, kgo.TryCommit))
}
