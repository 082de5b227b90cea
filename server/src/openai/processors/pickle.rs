//! The class that a pickle refers to, by its module and its name. Nothing is executed, and
//! nothing is made: opcodes are read as far as a reference to one class has them, and any
//! other ends the reading.

use std::fmt;

/// A class, as a pickle refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class<'a> {
    /// The module that it is imported from.
    pub module: &'a str,
    /// Its name there.
    pub name: &'a str,
}

/// Why a pickle is no reference to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It ends before it is whole.
    Short,
    /// A name in it is no text.
    NoText,
    /// There is something else in it: a class by value, a call, an object.
    More {
        /// The opcode.
        opcode: u8,
        /// The byte where it stands.
        at: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => to.write_str("a pickle that ends too early"),
            Self::NoText => to.write_str("a pickle with a name that is no text"),
            Self::More { opcode, at } => {
                write!(to, "a pickle with more than a class of a module: opcode {opcode:#04x}")?;
                write!(to, " at byte {at}")
            }
        }
    }
}

/// What a reference leaves on a pickle's stack.
enum Item<'a> {
    Text(&'a str),
    Class(Class<'a>),
}

/// The class that a pickle refers to, and nothing else.
pub fn class(bytes: &[u8]) -> Result<Class<'_>, Fault> {
    let mut reader = Reader { bytes, at: 0 };
    let mut stack = Vec::new();
    loop {
        let at = reader.at;
        let opcode = reader.byte()?;
        let more = Fault::More { opcode, at };
        match opcode {
            // The protocol, a frame, and places where nobody looks again.
            0x80 => drop(reader.take(1)?),
            0x95 => drop(reader.take(8)?),
            0x94 => {}
            b'q' => drop(reader.take(1)?),
            b'r' => drop(reader.take(4)?),
            b'p' => drop(reader.line()?),
            0x8c => stack.push(Item::Text(reader.text(1)?)),
            b'X' => stack.push(Item::Text(reader.text(4)?)),
            0x8d => stack.push(Item::Text(reader.text(8)?)),
            b'c' => {
                let (module, name) = (reader.line()?, reader.line()?);
                stack.push(Item::Class(Class { module, name }));
            }
            0x93 => match stack[..] {
                [Item::Text(module), Item::Text(name)] => {
                    stack = vec![Item::Class(Class { module, name })];
                }
                _ => return Err(more),
            },
            b'.' => match stack[..] {
                [Item::Class(class)] if reader.at == bytes.len() => return Ok(class),
                _ => return Err(more),
            },
            _ => return Err(more),
        }
        // A reference has a module and a name at most.
        if stack.len() > 2 {
            return Err(more);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count).ok_or(Fault::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A text after its length in so many bytes, the lowest first.
    fn text(&mut self, length_bytes: usize) -> Result<&'a str, Fault> {
        let length = self.take(length_bytes)?.iter().rev();
        let length = length.fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
        let text = self.take(usize::try_from(length).map_err(|_| Fault::Short)?)?;
        std::str::from_utf8(text).map_err(|_| Fault::NoText)
    }

    /// A text up to the end of its line.
    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::Short)?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length]).map_err(|_| Fault::NoText)
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Fault, class};
    use proptest::prelude::*;

    /// `a.b.C` as each protocol of Python's pickle refers to it.
    const REFERENCES: [&[u8]; 6] = [
        b"ca.b\nC\np0\n.",
        b"ca.b\nC\nq\x00.",
        b"\x80\x02ca.b\nC\nq\x00.",
        b"\x80\x03ca.b\nC\nq\x00.",
        b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x03a.b\x94\x8c\x01C\x94\x93\x94.",
        b"\x80\x05\x95\x0b\0\0\0\0\0\0\0\x8c\x03a.b\x94\x8c\x01C\x94\x93\x94.",
    ];

    #[test]
    fn every_protocols_reference_is_read() {
        for bytes in REFERENCES {
            assert_eq!(class(bytes), Ok(Class { module: "a.b", name: "C" }), "{bytes:?}");
        }
        let long = b"X\x03\0\0\0a.b\x8d\x01\0\0\0\0\0\0\0C\x93r\0\0\0\0.";
        assert_eq!(class(long), Ok(Class { module: "a.b", name: "C" }));
    }

    #[test]
    fn what_is_cut_is_short_and_what_follows_is_more() {
        for bytes in REFERENCES {
            for end in 0..bytes.len() {
                assert_eq!(class(&bytes[..end]), Err(Fault::Short), "{end} of {bytes:?}");
            }
            let longer = [bytes, b"."].concat();
            assert!(matches!(class(&longer), Err(Fault::More { opcode: b'.', .. })));
        }
    }

    #[test]
    fn calls_objects_and_classes_by_value_are_more() {
        for (bytes, opcode) in [
            // An object of the class, by both ways to make one; a call with an argument.
            (&b"\x80\x04\x8c\x01a\x8c\x01C\x93)\x81."[..], b')'),
            (b"ca\nC\n(tR.", b'('),
            (b"cos\nsystem\nX\x02\0\0\0idR.", b'R'),
            // Two classes; a text alone; a class of a class; nothing.
            (b"ca\nC\nca\nC\n.", b'.'),
            (b"\x8c\x01a.", b'.'),
            (b"ca\nC\n\x8c\x01D\x93.", 0x93),
            (b"\x8c\x01a\x8c\x01b\x8c\x01c", 0x8c),
            (b".", b'.'),
        ] {
            let fault = class(bytes).expect_err("it is more than a reference");
            assert!(matches!(fault, Fault::More { opcode: it, .. } if it == opcode), "{fault:?}");
        }
        assert_eq!(class(b"\x8c\x01\xff"), Err(Fault::NoText));
        assert_eq!(class(b"c\xff\nC\n."), Err(Fault::NoText));
        let hostile = [b"\x8d".as_slice(), &[0xff; 8], b"C"].concat();
        assert_eq!(class(&hostile), Err(Fault::Short));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_class_of_theirs_or_a_fault(
            which in 0usize..6,
            at in 0usize..40,
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut changed = REFERENCES[which].to_vec();
            changed.splice(at.min(changed.len()).., bytes.iter().copied());
            for bytes in [&changed, &bytes] {
                if let Ok(Class { module, name }) = class(bytes) {
                    let within = |text: &str| bytes.windows(text.len().max(1)).any(|it| it == text.as_bytes());
                    prop_assert!(module.is_empty() || within(module));
                    prop_assert!(name.is_empty() || within(name));
                }
            }
        }
    }
}
