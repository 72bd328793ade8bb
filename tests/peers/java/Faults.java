import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;

/** What a checker found wrong. */
final class Faults {
    private static final int SHOWN = 20;
    private final List<String> texts = new ArrayList<>();

    void expect(boolean right, Supplier<String> fault) {
        if (!right) {
            texts.add(fault.get());
        }
    }

    int count() {
        return texts.size();
    }

    /** Ends the process with 1 if there is any. */
    void report() {
        texts.stream().limit(SHOWN).forEach(text -> System.out.println("wrong: " + text));
        if (!texts.isEmpty()) {
            System.out.println(texts.size() + " faults");
            System.exit(1);
        }
    }
}
