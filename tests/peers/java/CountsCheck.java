import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Compares what the word count wrote with what it was given.
 * Usage: CountsCheck BOOTSTRAP APPLICATION INPUT OUTPUT LINES [await SECONDS]
 * Without await the application has ended, and everything must be right. Exit: 0 right, 1 not.
 */
public final class CountsCheck {
    private final Topics topics;
    private final String application;
    private final String input;
    private final String output;
    private final int lines;
    private final Faults faults = new Faults();

    private CountsCheck(Topics topics, String[] arguments) {
        this.topics = topics;
        this.application = arguments[1];
        this.input = arguments[2];
        this.output = arguments[3];
        this.lines = Integer.parseInt(arguments[4]);
    }

    public static void main(String[] arguments) throws Exception {
        plantedFaultsAreSeen();
        try (var topics = new Topics(arguments[0])) {
            var check = new CountsCheck(topics, arguments);
            var expected = check.inputIsWhole();
            if (arguments.length > 5) {
                check.await(expected, Integer.parseInt(arguments[6]));
            } else {
                check.everything(expected);
            }
            check.faults.report();
        }
    }

    /** The idempotent producer's part: every line once, in order. Returns how often each word occurs. */
    private Map<String, Long> inputIsWhole() {
        var next = new int[Lines.PARTITIONS];
        var expected = new HashMap<String, Long>();
        topics.read(input, Topics.COMMITTED, record -> {
            var line = text(record.value());
            var number = next[record.partition()] * Lines.PARTITIONS + record.partition();
            next[record.partition()]++;
            faults.expect(line.equals(Lines.line(number)), () -> record.partition() + "/" + record.offset() + " is not line " + number);
            for (var word : line.split(" ")) {
                expected.merge(word, 1L, Long::sum);
            }
        });
        var found = 0;
        for (var count : next) {
            found += count;
        }
        var total = found;
        faults.expect(total == lines, () -> "the input has " + total + " lines instead of " + lines);
        return expected;
    }

    private void await(Map<String, Long> expected, int seconds) throws InterruptedException {
        var updates = sum(expected);
        var deadline = System.nanoTime() + seconds * 1_000_000_000L;
        var written = topics.count(output, Topics.COMMITTED);
        while (written < updates && System.nanoTime() < deadline) {
            Thread.sleep(1_000);
            written = topics.count(output, Topics.COMMITTED);
        }
        var found = written;
        faults.expect(found >= updates, () -> "the output stays at " + found + " of " + updates + " updates for " + seconds + " s");
    }

    private void everything(Map<String, Long> expected) throws Exception {
        var sequences = new Sequences();
        topics.read(output, Topics.COMMITTED,
            record -> sequences.update(text(record.key()), record.partition(), number(record.value())));
        sequences.compare(expected, faults);
        changelogIsRight(expected);
        var repartition = application + "-counts-repartition";
        nothingIsOpen(output, repartition, changelog());
        everythingIsCommitted();
        purged(repartition);
        System.out.println(lines + " lines, " + expected.size() + " words, " + topics.count(output, Topics.COMMITTED) + " updates; "
            + hidden(output, repartition, changelog()) + " aborted records are hidden in the application's topics");
        faults.expect(!expected.isEmpty(), () -> "nothing was processed");
    }

    /** What a new instance would restore: the last count of each word. */
    private void changelogIsRight(Map<String, Long> expected) {
        var last = new HashMap<String, Long>();
        topics.read(changelog(), Topics.COMMITTED, record -> last.put(text(record.key()), number(record.value())));
        faults.expect(last.equals(expected), () -> "the changelog ends with other counts than the input has");
    }

    private long hidden(String... names) {
        var hidden = 0L;
        for (var name : names) {
            hidden += topics.count(name, Topics.EVERYTHING) - topics.count(name, Topics.COMMITTED);
        }
        return hidden;
    }

    private void nothingIsOpen(String... names) {
        for (var name : names) {
            var end = topics.ends(name, Topics.EVERYTHING);
            var decided = topics.ends(name, Topics.COMMITTED);
            faults.expect(end.equals(decided), () -> "a transaction is open: " + decided + " of " + end);
        }
    }

    private void everythingIsCommitted() throws Exception {
        var committed = topics.committed(application);
        topics.ends(input, Topics.EVERYTHING).forEach((partition, end) -> faults.expect(end.equals(committed.get(partition)),
            () -> partition + " ends at " + end + ", committed is " + committed.get(partition)));
    }

    /** Streams deletes what it has read from its own topic (DeleteRecords), each half minute. */
    private void purged(String repartition) {
        topics.beginnings(repartition).forEach((partition, beginning) ->
            faults.expect(beginning > 0, () -> partition + " was never purged"));
    }

    private String changelog() {
        return application + "-counts-changelog";
    }

    private static long sum(Map<String, Long> counts) {
        return counts.values().stream().mapToLong(Long::longValue).sum();
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    private static long number(byte[] bytes) {
        return ByteBuffer.wrap(bytes).getLong();
    }

    /** The updates of the output, word by word: counts go 1, 2, 3, … to the number of occurrences, all in one partition. */
    static final class Sequences {
        private final Map<String, Long> counts = new HashMap<>();
        private final Map<String, Integer> partitions = new HashMap<>();
        private final List<String> breaks = new ArrayList<>();

        void update(String word, int partition, long count) {
            var before = counts.getOrDefault(word, 0L);
            if (count != before + 1) {
                breaks.add(word + ": " + count + " follows " + before);
            }
            if (partitions.computeIfAbsent(word, key -> partition) != partition) {
                breaks.add(word + " is in partitions " + partitions.get(word) + " and " + partition);
            }
            counts.put(word, count);
        }

        void compare(Map<String, Long> expected, Faults faults) {
            breaks.forEach(text -> faults.expect(false, () -> text));
            expected.forEach((word, count) -> faults.expect(count.equals(counts.get(word)),
                () -> word + " ends with " + counts.get(word) + " instead of " + count));
            counts.forEach((word, count) -> faults.expect(expected.containsKey(word), () -> word + " is not in the input"));
        }
    }

    /** A judge that sees nothing would pass everything. */
    private static void plantedFaultsAreSeen() {
        judge(0, new long[] {1, 2, 3}, 3);
        judge(1, new long[] {1, 2}, 3);
        judge(1, new long[] {1, 2, 2, 3}, 3);
        judge(1, new long[] {1, 3}, 3);
        judge(3, new long[] {1, 3, 2}, 3);
        judge(1, new long[] {1, 2, 3, 4}, 3);
        judge(1, new long[] {}, 3);
    }

    private static void judge(int expected, long[] updates, long occurrences) {
        var sequences = new Sequences();
        for (var update : updates) {
            sequences.update("w", 0, update);
        }
        var faults = new Faults();
        sequences.compare(Map.of("w", occurrences), faults);
        if (faults.count() != expected) {
            throw new AssertionError("the judge sees " + faults.count() + " faults instead of " + expected);
        }
    }
}
