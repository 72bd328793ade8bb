package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// admin is an operator's day: topics and their settings, partitions, offsets, deleting records, groups; and what is
// refused, with the error that says why.
func admin(ctx context.Context, broker []kgo.Opt, _ string) error {
	cl, err := client(broker)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm, topic := kadm.NewClient(cl), unique("admin")
	for _, part := range []func(context.Context, *kadm.Client, string) error{create, changeSettings, addPartitions} {
		if err := part(ctx, adm, topic); err != nil {
			return err
		}
	}
	if err := lookAtOffsets(ctx, cl, adm, topic); err != nil {
		return err
	}
	if err := lookAtGroups(ctx, broker, adm, topic); err != nil {
		return err
	}
	_, err = adm.DeleteTopic(ctx, topic)
	_, again := adm.DeleteTopic(ctx, topic)
	return first(err, expect("deleting it again", again, kerr.UnknownTopicOrPartition))
}

func create(ctx context.Context, adm *kadm.Client, topic string) error {
	settings := map[string]*string{"retention.ms": kadm.StringPtr("3600000"), "cleanup.policy": kadm.StringPtr("delete")}
	validated, err := adm.ValidateCreateTopics(ctx, 3, 1, settings, topic)
	if err = first(err, validated.Error()); err != nil {
		return err
	}
	there, err := adm.ListTopics(ctx)
	if err = first(err, expect("only validated, so not there", there.Has(topic), false)); err != nil {
		return err
	}
	made, err := adm.CreateTopic(ctx, 3, 1, settings, topic)
	if err = first(err, expect("partitions", made.NumPartitions, int32(3)), listed(ctx, adm, topic, 3)); err != nil {
		return err
	}
	for _, wrong := range []struct {
		what, topic string
		partitions  int32
		replicas    int16
		key, value  string
		error       error
	}{
		{"the topic exists", topic, 3, 1, "retention.ms", "1000", kerr.TopicAlreadyExists},
		{"no such name", "a/b", 1, 1, "retention.ms", "1000", kerr.InvalidTopicException},
		{"no partitions", unique("x"), 0, 1, "retention.ms", "1000", kerr.InvalidPartitions},
		{"too many replicas", unique("x"), 1, 5, "retention.ms", "1000", kerr.InvalidReplicationFactor},
		{"a setting without sense", unique("x"), 1, 1, "retention.ms", "soon", kerr.InvalidConfig},
		{"an unknown setting", unique("x"), 1, 1, "colour", "red", kerr.InvalidConfig},
	} {
		_, err := adm.CreateTopic(ctx, wrong.partitions, wrong.replicas, map[string]*string{wrong.key: &wrong.value}, wrong.topic)
		if err = expect(wrong.what, err, wrong.error); err != nil {
			return err
		}
	}
	return nil
}

// listed waits until the topic has so many partitions in the list.
func listed(ctx context.Context, adm *kadm.Client, topic string, partitions int) error {
	return expectSoon("partitions listed", func() (int, error) {
		there, err := adm.ListTopics(ctx, topic)
		return len(there[topic].Partitions), err
	}, partitions)
}

// setting gives a topic's setting and where it comes from.
func setting(ctx context.Context, adm *kadm.Client, topic, name string) (string, error) {
	all, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	described, err := all.On(topic, nil)
	if err = first(err, described.Err); err != nil {
		return "", err
	}
	at := slices.IndexFunc(described.Configs, func(c kadm.Config) bool { return c.Key == name })
	if at < 0 {
		return "", kerr.InvalidConfig
	}
	return fmt.Sprint(described.Configs[at].MaybeValue(), " of ", described.Configs[at].Source), nil
}

func changeSettings(ctx context.Context, adm *kadm.Client, topic string) error {
	is := func(name, wanted string, from kmsg.ConfigSource) error {
		return expectSoon(name, func() (string, error) { return setting(ctx, adm, topic, name) }, fmt.Sprint(wanted, " of ", from))
	}
	if err := first(is("retention.ms", "3600000", kmsg.ConfigSourceDynamicTopicConfig),
		is("max.message.bytes", "1048588", kmsg.ConfigSourceDefaultConfig)); err != nil {
		return err
	}
	alter := func(op kadm.IncrementalOp, name, value string) error {
		altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: name, Value: &value}}, topic)
		if err != nil {
			return err
		}
		one, err := altered.On(topic, nil)
		return first(err, one.Err)
	}
	if err := first(alter(kadm.SetConfig, "max.message.bytes", "200000"), alter(kadm.AppendConfig, "cleanup.policy", "compact"),
		alter(kadm.DeleteConfig, "retention.ms", "")); err != nil {
		return err
	}
	if err := expect("a bad value", alter(kadm.SetConfig, "max.message.bytes", "-5"), error(kerr.InvalidConfig)); err != nil {
		return err
	}
	_, unknown := setting(ctx, adm, unique("nowhere"), "retention.ms")
	return first(is("max.message.bytes", "200000", kmsg.ConfigSourceDynamicTopicConfig),
		is("retention.ms", "604800000", kmsg.ConfigSourceDefaultConfig),
		is("cleanup.policy", "delete,compact", kmsg.ConfigSourceDynamicTopicConfig),
		alter(kadm.SubtractConfig, "cleanup.policy", "compact"),
		expect("settings of an unknown topic", unknown, error(kerr.UnknownTopicOrPartition)))
}

func addPartitions(ctx context.Context, adm *kadm.Client, topic string) error {
	update := func(topic string, count int) error {
		updated, err := adm.UpdatePartitions(ctx, count, topic)
		return first(err, updated.Error())
	}
	if err := first(update(topic, 5), listed(ctx, adm, topic, 5)); err != nil {
		return err
	}
	return first(expect("fewer partitions", update(topic, 2), error(kerr.InvalidPartitions)),
		expect("partitions of an unknown topic", update(unique("x"), 2), error(kerr.UnknownTopicOrPartition)))
}

func lookAtOffsets(ctx context.Context, cl *kgo.Client, adm *kadm.Client, topic string) error {
	for number := range 10 {
		record := &kgo.Record{Topic: topic, Value: []byte{byte(number)}, Timestamp: time.UnixMilli(int64(number) * 1000)}
		record.Key = []byte("the same, so one partition")
		if err := cl.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
	}
	var at int32
	is := func(what string, wanted int64, list func() (kadm.ListedOffsets, error)) error {
		listed, err := list()
		if err = first(err, listed.Error()); err != nil {
			return err
		}
		for partition, offset := range listed[topic] {
			if offset.Offset == wanted {
				at = partition
				return expect(what, offset.Offset, wanted)
			}
		}
		return expect(what, listed[topic], wanted)
	}
	if err := first(
		is("newest timestamp", 9, func() (kadm.ListedOffsets, error) { return adm.ListMaxTimestampOffsets(ctx, topic) }),
		is("at a time", 4, func() (kadm.ListedOffsets, error) { return adm.ListOffsetsAfterMilli(ctx, 3500, topic) }),
		is("latest", 10, func() (kadm.ListedOffsets, error) { return adm.ListEndOffsets(ctx, topic) }),
	); err != nil {
		return err
	}
	delete := func(before int64) (int64, error) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(topic, at, before, -1)
		deleted, err := adm.DeleteRecords(ctx, offsets)
		if err != nil {
			return 0, err
		}
		one, err := deleted.On(topic, at, nil)
		return one.LowWatermark, first(err, one.Err)
	}
	low, err := delete(4)
	_, tooFar := delete(11)
	return first(err, expect("low watermark", low, int64(4)),
		expect("deleting beyond the end", tooFar, error(kerr.OffsetOutOfRange)),
		is("earliest", 4, func() (kadm.ListedOffsets, error) { return adm.ListStartOffsets(ctx, topic) }))
}

func lookAtGroups(ctx context.Context, broker []kgo.Opt, adm *kadm.Client, topic string) error {
	group := unique("operators")
	reader, err := client(broker, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	if err != nil {
		return err
	}
	got := reader.PollRecords(ctx, 1)
	err = first(got.Err(), reader.CommitRecords(ctx, got.Records()...))
	listed, err1 := adm.ListGroups(ctx)
	described, err2 := adm.DescribeGroups(ctx, group)
	if err = first(err, err1, err2); err != nil {
		return err
	}
	members := described[group].Members
	if err = first(expect("state in the list", listed[group].State, "Stable"), expect("members", len(members), 1),
		expect("client", members[0].ClientID, "programs"),
		expect("partitions", len(described.AssignedPartitions()[topic]), 5)); err != nil {
		return err
	}
	_, err = adm.DeleteGroup(ctx, group)
	if err = expect("a group with members cannot go", err, error(kerr.NonEmptyGroup)); err != nil {
		return err
	}
	reader.Close()
	record := got.Records()[0]
	moved := kadm.Offsets{}
	moved.AddOffset(topic, record.Partition, 9, -1)
	committed := func(wanted int64) error {
		offsets, err := adm.FetchOffsets(ctx, group)
		return first(err, expect("committed", offsets[topic][record.Partition].At, wanted))
	}
	if err = first(committed(record.Offset+1), adm.CommitAllOffsets(ctx, group, moved), committed(9)); err != nil {
		return err
	}
	_, err = adm.DeleteGroup(ctx, group)
	_, again := adm.DeleteGroup(ctx, group)
	return first(err, expect("an unknown group", again, error(kerr.GroupIDNotFound)))
}
