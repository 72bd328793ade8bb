import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** The text that is counted: line N has the word nN, which no other line has, and some of a few common ones. */
final class Lines {
    static final int PARTITIONS = 4;
    private static final int COMMON_WORDS = 40;

    private Lines() {
    }

    static String line(int number) {
        var random = new Random(number * 2_654_435_761L);
        var words = new ArrayList<>(List.of("n" + number));
        for (var more = 1 + random.nextInt(8); more > 0; more--) {
            // Few words are frequent and many are rare, as in a text.
            var rank = (int) (COMMON_WORDS * random.nextDouble() * random.nextDouble());
            words.add("w" + rank);
        }
        return String.join(" ", words);
    }

    static int partition(int number) {
        return number % PARTITIONS;
    }
}
