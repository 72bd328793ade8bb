//! Mutations that parsers trip over: cuts, repetitions, splices of two seeds, flipped bits, and numbers that are huge,
//! negative or just past a bound, at any place and of any width.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

const NUMBERS: [&[u8]; 14] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80],
    &[0x7f, 0xff],
    &[0x80, 0x00],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xff; 8],
    &[0xff; 16],
];

/// One input: a seed, changed in one to a few places.
pub fn mutate(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => {
                let other = &seeds[rng.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.below(other.len()).min(other.len())..]);
            }
            2 => {
                let end = (at + 1 + rng.below(40)).min(bytes.len());
                let piece = bytes[at.min(end)..end].to_vec();
                bytes.splice(at.min(end)..at.min(end), piece);
            }
            3 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            4 if !bytes.is_empty() => bytes[at] = rng.next() as u8,
            5 => {
                let end = (at + rng.below(20)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            _ => {
                let number = NUMBERS[rng.below(NUMBERS.len())];
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at.min(end)..end, number.iter().copied());
            }
        }
        bytes.truncate(1 << 16);
    }
    bytes
}
