import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes numbered lines at a steady rate with an idempotent producer.
 * Usage: Feeder BOOTSTRAP TOPIC LINES LINES-A-SECOND. Says each second how many are acknowledged; ends with 1 if one was refused.
 */
public final class Feeder {
    private Feeder() {
    }

    public static void main(String[] arguments) throws InterruptedException {
        var topic = arguments[1];
        var lines = Integer.parseInt(arguments[2]);
        var rate = Integer.parseInt(arguments[3]);
        var acknowledged = new AtomicInteger();
        var refused = new AtomicReference<Exception>();
        try (var producer = new KafkaProducer<String, String>(Map.of(
            ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, true,
            ProducerConfig.ACKS_CONFIG, "all"
        ), new StringSerializer(), new StringSerializer())) {
            var began = System.nanoTime();
            for (var number = 0; number < lines && refused.get() == null; number++) {
                pace(began, number, rate);
                if (number % rate == 0) {
                    System.out.println("acknowledged " + acknowledged);
                }
                producer.send(new ProducerRecord<>(topic, Lines.partition(number), null, Lines.line(number)), (metadata, error) -> {
                    if (error == null) {
                        acknowledged.incrementAndGet();
                    } else {
                        refused.compareAndSet(null, error);
                    }
                });
            }
        }
        System.out.println("acknowledged " + acknowledged);
        if (refused.get() != null) {
            refused.get().printStackTrace();
            System.exit(1);
        }
    }

    /** Behind after an outage, it catches up. */
    private static void pace(long began, int number, int rate) throws InterruptedException {
        var wait = began + number * 1_000_000_000L / rate - System.nanoTime();
        if (wait > 0) {
            Thread.sleep(wait / 1_000_000, (int) (wait % 1_000_000));
        }
    }
}
