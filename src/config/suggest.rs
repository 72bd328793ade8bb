//! The known name that a mistyped one is nearest to.

/// The nearest of `known`, where it is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    // Beyond this nothing is near, and the distance costs the product of both lengths.
    if name.len() > 100 {
        return None;
    }
    let most = 1 + name.len() / 5;
    let near = known.into_iter().map(|known| (distance(&name, &known.to_ascii_lowercase()), known));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

/// Levenshtein's: how many letters have to be put in, left out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_found_and_nothing_else() {
        let known = ["num.partitions", "num.io.threads", "wal.segment_bytes"];
        assert_eq!(nearest("num.partition", known), Some("num.partitions"));
        assert_eq!(nearest("WAL.segment_byte", known), Some("wal.segment_bytes"));
        assert_eq!(nearest("cleanup.policy", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
