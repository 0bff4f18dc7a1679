//! The part of a request after the question mark.

use http::StatusCode;

use super::Failure;

/// Names and values, in order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
                    (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
                })
                .collect(),
        )
    }

    /// The last value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name, in order.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name) {
            None | Some("false" | "0" | "False" | "FALSE" | "f" | "F" | "") => Ok(false),
            Some("true" | "1" | "True" | "TRUE" | "t" | "T") => Ok(true),
            Some(other) => Err(invalid(name, other)),
        }
    }

    /// A number that is not negative.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.get(name).filter(|text| !text.is_empty()).map(|text| text.parse().map_err(|_| invalid(name, text))).transpose()
    }
}

pub(super) fn invalid(name: &str, value: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, format!("invalid value for {name}: {value:?}"))
}

/// Takes the percent signs out. What is not UTF-8 becomes so, with the usual replacement.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%26b%20%C3%A9&follow&tty=0&tailLines=5&x=%zz%4");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a&b é"]);
        assert!(query.flag("follow").is_ok_and(|flag| flag));
        assert!(query.flag("tty").is_ok_and(|flag| !flag));
        assert!(query.flag("absent").is_ok_and(|flag| !flag));
        assert!(query.flag("tailLines").is_err());
        assert!(query.number("tailLines").is_ok_and(|number| number == Some(5)));
        assert!(query.number("x").is_err());
        assert_eq!(query.get("x"), Some("%zz%4"));
    }
}
