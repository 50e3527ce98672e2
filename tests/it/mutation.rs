//! Bytes that are almost right, the same ones in every run.

/// A small generator, so that a failure is the same tomorrow (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// Below this; 0 for 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % bound.max(1)
    }
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// What tends to upset parsers of texts.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b".",
    b"..",
    b"\0",
    b"\n",
    b"\r\n",
    b"=",
    b"-",
    b"1e999",
    b"-0",
    b"9007199254740993",
    b"18446744073709551616",
    b"null",
    b"true",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x80\xae",
    b"[[",
    b"]]",
    b"'''",
    b"\"\"\"",
    b"%00",
    b"%2e%2e",
    b"//",
    b"@",
    b"#",
    b"?",
    b"eyJ",
    b"e30",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
];

/// A text like this one, changed in one to four places; now and then with a piece of another.
pub(crate) fn mutated(text: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(16)).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.byte(),
            2 => bytes.insert(at, random.byte()),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let piece = bytes[at..to].to_vec();
                let again = random.below(8);
                for _ in 0..=again {
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            5 => drop(bytes.splice(at..at, random.pick(WORDS).iter().copied())),
            6 => drop(bytes.splice(at..to, random.pick(WORDS).iter().copied())),
            7 => bytes.truncate(at),
            _ => {
                let other = random.pick(others);
                let from = random.below(other.len() + 1);
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                bytes.splice(at..to, piece.iter().copied());
            }
        }
    }
    bytes
}
