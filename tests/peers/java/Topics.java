import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads whole topics for the checkers, without a group. Partitions come one after the other, each in its order. */
final class Topics implements AutoCloseable {
    static final String COMMITTED = "read_committed";
    static final String EVERYTHING = "read_uncommitted";
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final String bootstrap;
    private final Admin admin;

    Topics(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap));
    }

    /** Hands every record up to the end of now to the reader; a log that does not give them within a minute is an error. */
    void read(String topic, String isolation, Consumer<ConsumerRecord<byte[], byte[]>> reader) {
        try (var consumer = consumer(isolation)) {
            var partitions = partitions(consumer, topic);
            var ends = consumer.endOffsets(partitions);
            for (var partition : partitions) {
                consumer.assign(Set.of(partition));
                consumer.seekToBeginning(Set.of(partition));
                var deadline = System.nanoTime() + PATIENCE.toNanos();
                while (consumer.position(partition) < ends.get(partition)) {
                    if (System.nanoTime() > deadline) {
                        throw new IllegalStateException(partition + " stops at " + consumer.position(partition)
                            + " before its end " + ends.get(partition));
                    }
                    for (var record : consumer.poll(Duration.ofMillis(200))) {
                        if (record.offset() < ends.get(partition)) {
                            reader.accept(record);
                        }
                    }
                }
            }
        }
    }

    long count(String topic, String isolation) {
        var records = new long[1];
        read(topic, isolation, record -> records[0]++);
        return records[0];
    }

    /** Ends as a reader of that isolation sees them: of the log, or of what is decided. */
    Map<TopicPartition, Long> ends(String topic, String isolation) {
        try (var consumer = consumer(isolation)) {
            return consumer.endOffsets(partitions(consumer, topic));
        }
    }

    Map<TopicPartition, Long> beginnings(String topic) {
        try (var consumer = consumer(EVERYTHING)) {
            return consumer.beginningOffsets(partitions(consumer, topic));
        }
    }

    /** Committed offsets of a group, none of them pending in a transaction. */
    Map<TopicPartition, Long> committed(String group) throws Exception {
        var offsets = new HashMap<TopicPartition, Long>();
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
            .forEach((partition, offset) -> offsets.put(partition, offset == null ? -1 : offset.offset()));
        return offsets;
    }

    private static List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer, String topic) {
        return consumer.partitionsFor(topic).stream()
            .map(info -> new TopicPartition(topic, info.partition()))
            .sorted((a, b) -> Integer.compare(a.partition(), b.partition()))
            .collect(Collectors.toList());
    }

    private KafkaConsumer<byte[], byte[]> consumer(String isolation) {
        return new KafkaConsumer<>(Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
            ConsumerConfig.ISOLATION_LEVEL_CONFIG, isolation,
            ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false,
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none"
        ), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    @Override
    public void close() {
        admin.close();
    }
}
