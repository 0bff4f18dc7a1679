//! The wire format of protobuf: tags, numbers, lengths. What the fields mean is not known here.

/// A body that is not what it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

const TRUNCATED: Malformed = Malformed("it ends in the middle of a field");
/// A field is there in another wire type than its own.
pub(super) const OTHER_TYPE: Malformed = Malformed("a field has the wrong wire type");

/// The value of one field as it travels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(OTHER_TYPE),
        }
    }
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }
    /// A number, or zero where an entry of a map leaves its value out.
    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Wire::Varint(number) => Ok(number),
            Wire::Bytes([]) => Ok(0),
            _ => Err(OTHER_TYPE),
        }
    }
    /// Negative numbers travel as two's complement in 64 bits, 32-bit ones too.
    pub(super) fn integer(self) -> Result<i64, Malformed> {
        Ok(self.varint()? as i64)
    }
}

/// Reads a message field by field.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The number and the value of the next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or(Malformed("a field has an impossible number"))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| TRUNCATED)?))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| TRUNCATED)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            // Groups are long out of use and no type of Kubernetes has one.
            _ => return Err(Malformed("a field has an unknown wire type")),
        };
        Ok(Some((number, wire)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Writes a message field by field.
#[derive(Default)]
pub(in crate::api) struct Writer(Vec<u8>);

impl Writer {
    /// A message that was written elsewhere.
    #[cfg(test)]
    pub(in crate::api) fn of(bytes: Vec<u8>) -> Self {
        Writer(bytes)
    }
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
    pub(in crate::api) fn bytes(mut self, number: u64, bytes: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
    pub(in crate::api) fn text(self, number: u64, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }
    #[cfg(test)]
    pub(in crate::api) fn number(mut self, number: u64, value: i64) -> Self {
        self.varint(number << 3);
        self.varint(value as u64);
        self
    }
    pub(in crate::api) fn message(self, number: u64, inner: Writer) -> Self {
        self.bytes(number, &inner.0)
    }
    pub(in crate::api) fn finish(self) -> Vec<u8> {
        self.0
    }
}
