import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Compares the file that a source connector read, the topic in between, and the file that a sink connector wrote.
 * Usage: FilesCheck BOOTSTRAP TOPIC SOURCE SINK [LINE:OFFSET]…
 * LINE:OFFSET for each SIGKILL of the worker: how many lines the sink had then, and a committed offset of the sink from before it.
 * Exit: 0 right, 1 not.
 */
public final class FilesCheck {
    private FilesCheck() {
    }

    public static void main(String[] arguments) throws Exception {
        plantedFaultsAreSeen();
        var faults = new Faults();
        var source = Files.readAllLines(Path.of(arguments[2]));
        var sink = Files.readAllLines(Path.of(arguments[3]));
        var kills = new TreeMap<Integer, Long>();
        for (var kill : List.of(arguments).subList(4, arguments.length)) {
            var parts = kill.split(":");
            kills.put(Integer.valueOf(parts[0]), Long.valueOf(parts[1]));
        }
        var topic = new ArrayList<String>();
        var offsets = new ArrayList<Long>();
        var written = 0L;
        try (var topics = new Topics(arguments[0])) {
            topics.read(arguments[1], Topics.COMMITTED, record -> {
                topic.add(new String(record.value(), StandardCharsets.UTF_8));
                offsets.add(record.offset());
            });
            written = topics.count(arguments[1], Topics.EVERYTHING);
            var end = topics.ends(arguments[1], Topics.EVERYTHING);
            var decided = topics.ends(arguments[1], Topics.COMMITTED);
            faults.expect(end.equals(decided), () -> "a transaction is open: " + decided + " of " + end);
            faults.expect(end.size() == 1, () -> "the topic has " + end.size() + " partitions");
        }
        faults.expect(!source.isEmpty(), () -> "the source is empty");
        topicIsRight(source, topic, faults);
        if (faults.count() == 0) {
            sinkIsRight(source, offsets, sink, kills, faults);
        }
        System.out.println(source.size() + " lines, " + topic.size() + " records and " + (written - topic.size())
            + " aborted ones; the sink has " + (sink.size() - source.size()) + " repeated lines");
        faults.report();
    }

    /** The source is exactly once: each line is one committed record, in order. */
    static void topicIsRight(List<String> source, List<String> topic, Faults faults) {
        for (var i = 0; i < Math.max(source.size(), topic.size()); i++) {
            var line = i < source.size() ? source.get(i) : null;
            var record = i < topic.size() ? topic.get(i) : null;
            if (!String.valueOf(line).equals(record)) {
                var number = i;
                faults.expect(false, () -> "record " + number + " is " + record + " instead of " + line);
                return; // everything behind is shifted
            }
        }
    }

    /**
     * The sink writes each line in order. Only a worker that was killed may have written lines whose offsets it had not committed
     * yet: the next one goes back once, at that line of the file, and not behind the committed offset.
     */
    static void sinkIsRight(List<String> source, List<Long> offsets, List<String> sink, Map<Integer, Long> kills, Faults faults) {
        var index = new HashMap<String, Integer>();
        for (var i = 0; i < source.size(); i++) {
            index.put(source.get(i), i);
        }
        var next = 0;
        for (var i = 0; i < sink.size(); i++) {
            var place = index.get(sink.get(i));
            var line = i + 1;
            if (place == null) {
                faults.expect(false, () -> "line " + line + " of the sink is in no line of the source");
                return;
            }
            if (place != next) {
                var from = next;
                var floor = kills.get(i);
                faults.expect(floor != null && place < from && offsets.get(place) >= floor,
                    () -> "line " + line + " of the sink is line " + (place + 1) + " of the source, expected is " + (from + 1)
                        + (floor == null ? ", nothing was killed here" : ", or after a kill one from offset " + floor));
            }
            next = place + 1;
        }
        var reached = next;
        faults.expect(reached == source.size(), () -> "the sink ends with line " + reached + " of " + source.size());
    }

    /** A judge that sees nothing would pass everything. */
    private static void plantedFaultsAreSeen() {
        topic(0, "a b c", "a b c");
        topic(1, "a b c", "a b");
        topic(1, "a b c", "a b b c");
        topic(1, "a b c", "b a c");
        sink(0, "a b c d", Map.of());
        sink(1, "a b c", Map.of());
        sink(1, "a b d", Map.of());
        sink(1, "a b b c d", Map.of());
        sink(1, "a b e c d", Map.of());
        // Killed after two lines, when the first was committed (offset 11 is that of b).
        sink(0, "a b b c d", Map.of(2, 11L));
        sink(0, "a b c d", Map.of(2, 11L));
        sink(1, "a b a b c d", Map.of(2, 11L));
        sink(1, "a b c b c d", Map.of(2, 11L));
        sink(1, "a b d", Map.of(2, 11L));
    }

    private static void topic(int expected, String source, String topic) {
        var faults = new Faults();
        topicIsRight(List.of(source.split(" ")), List.of(topic.split(" ")), faults);
        seen(expected, faults, topic);
    }

    private static void sink(int expected, String sink, Map<Integer, Long> kills) {
        var faults = new Faults();
        sinkIsRight(List.of("a", "b", "c", "d"), List.of(10L, 11L, 12L, 13L), List.of(sink.split(" ")), kills, faults);
        seen(expected, faults, sink);
    }

    private static void seen(int expected, Faults faults, String text) {
        if (faults.count() != expected) {
            throw new AssertionError("the judge sees " + faults.count() + " faults instead of " + expected + " in " + text);
        }
    }
}
