package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sample has records with empty and absent keys, values and headers, a header twice, text, bytes, a large one.
func sample(topic string) []*kgo.Record {
	noise := make([]byte, 400_000)
	_, _ = rand.Read(noise)
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	all := []*kgo.Record{
		{Partition: 0, Value: []byte("no key")},
		{Partition: 0, Key: []byte("deleted"), Headers: []kgo.RecordHeader{header("why", "tombstone")}},
		{Partition: 1, Key: []byte{}, Value: []byte{}, Headers: []kgo.RecordHeader{header("empty", ""), {Key: "none"}}},
		{Partition: 1, Key: []byte("schlüssel"), Value: []byte("wert €"), Headers: []kgo.RecordHeader{header("twice", "1"), header("twice", "2")}},
		{Partition: 2, Key: noise[:40], Value: noise, Headers: []kgo.RecordHeader{{Key: "random", Value: noise[:100]}}},
	}
	for number := range 300 {
		text := fmt.Sprintf("value %d", number)
		all = append(all, &kgo.Record{Partition: int32(number % 3), Key: []byte(text), Value: []byte(text + text + text)})
	}
	for number, record := range all {
		record.Topic, record.Timestamp = topic, time.UnixMilli(1_700_000_000_000+int64(number))
	}
	return all
}

// seen is what of a record must come back: all but offset and epoch.
func seen(r *kgo.Record) string {
	return fmt.Sprintf("%d %d %#v %#v %#v", r.Partition, r.Timestamp.UnixMilli(), r.Key, r.Value, r.Headers)
}

// records sends records in every codec, with keys, headers and timestamps, and reads what was sent.
func records(ctx context.Context, broker []kgo.Opt, _ string) error {
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		topic := unique("records-" + name)
		if err := createTopics(ctx, broker, 3, topic); err != nil {
			return err
		}
		producer, err := client(broker, kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			return err
		}
		wanted := sample(topic)
		err = producer.ProduceSync(ctx, wanted...).FirstErr()
		producer.Close()
		if err != nil {
			return err
		}
		if err := readBack(ctx, broker, name, topic, wanted); err != nil {
			return err
		}
	}
	return nil
}

func readBack(ctx context.Context, broker []kgo.Opt, name, topic string, wanted []*kgo.Record) error {
	consumer, err := client(broker, kgo.ConsumeTopics(topic))
	if err != nil {
		return err
	}
	defer consumer.Close()
	sent, got := make([][]string, 3), make([][]string, 3)
	for _, record := range wanted {
		sent[record.Partition] = append(sent[record.Partition], seen(record))
	}
	for count := 0; count < len(wanted); {
		fetched := consumer.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return err
		}
		for _, record := range fetched.Records() {
			got[record.Partition] = append(got[record.Partition], seen(record))
			count++
		}
	}
	for partition := range sent {
		if err := first(expect(name+": records of a partition", len(got[partition]), len(sent[partition])),
			expect(name+": what was produced, in order", fmt.Sprint(got[partition]) == fmt.Sprint(sent[partition]), true)); err != nil {
			return err
		}
	}
	return nil
}
