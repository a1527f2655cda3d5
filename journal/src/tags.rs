//! Tags: what a program says about a named point, key by key, so that another program finds it again.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// Most tags that one marker has.
pub const TAGS_MAX: usize = 32;
/// Longest key and longest value, in bytes: their lengths are one byte each.
pub const TAG_TEXT_MAX: usize = 255;

/// Tags in the order in which they were given. What is in here can be written: the limits are held when it is made, so
/// that a record never has to leave a tag away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Vec<(String, String)>")]
pub struct Tags(Vec<(String, String)>);

/// Why tags cannot be those of a marker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagsError {
    /// Nothing before the `=`.
    #[error("the key is empty")]
    EmptyKey,
    /// Longer than its length byte can say.
    #[error("the {what} of `{key}` is longer than {TAG_TEXT_MAX} bytes")]
    TooLong {
        /// Key or value.
        what: &'static str,
        /// The key, or what begins it.
        key: String,
    },
    /// Which of the two would count?
    #[error("the key `{0}` is there twice")]
    Twice(String),
    /// More than a marker holds.
    #[error("{0} tags are more than the {TAGS_MAX} that a marker holds")]
    TooMany(usize),
}

impl Tags {
    /// Takes keys with their values.
    ///
    /// # Errors
    /// A key is empty or there twice, a key or value is too long, or there are too many.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Tags, TagsError> {
        if pairs.len() > TAGS_MAX {
            return Err(TagsError::TooMany(pairs.len()));
        }
        for (index, (key, value)) in pairs.iter().enumerate() {
            let shown = || key.chars().take(32).collect::<String>();
            if key.is_empty() {
                return Err(TagsError::EmptyKey);
            }
            for (what, text) in [("key", key), ("value", value)] {
                if text.len() > TAG_TEXT_MAX {
                    return Err(TagsError::TooLong { what, key: shown() });
                }
            }
            if pairs[..index].iter().any(|(other, _)| other == key) {
                return Err(TagsError::Twice(shown()));
            }
        }
        Ok(Tags(pairs))
    }

    /// Keys with their values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON for people's programs: one object, its keys in order.
    ///
    /// # Errors
    /// The serializer's.
    pub fn as_object<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

/// `key=value key=value`, as they were typed.
impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}={}", printable(key), printable(value))?;
        }
        Ok(())
    }
}

/// What would move the cursor, or end the line, is spelled out.
fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) { text.escape_debug().collect() } else { Cow::Borrowed(text) }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl TryFrom<Vec<(String, String)>> for Tags {
    type Error = TagsError;

    fn try_from(pairs: Vec<(String, String)>) -> Result<Tags, TagsError> {
        Tags::new(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Result<Tags, TagsError> {
        Tags::new(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn tags_keep_their_order_and_their_limits() {
        let two = tags(&[("release", "17"), ("by", "")]).expect("two tags");
        assert_eq!(two.to_string(), "release=17 by=");
        assert_eq!(tags(&[("k", "a\nb")]).expect("a tag").to_string(), r"k=a\nb");
        let (fits, long) = ("k".repeat(TAG_TEXT_MAX), "k".repeat(TAG_TEXT_MAX + 1));
        assert!(tags(&[(&fits, &fits)]).is_ok());
        assert_eq!(tags(&[("", "x")]), Err(TagsError::EmptyKey));
        assert!(matches!(tags(&[(&long, "x")]), Err(TagsError::TooLong { what: "key", .. })));
        assert!(matches!(tags(&[("k", &long)]), Err(TagsError::TooLong { what: "value", .. })));
        assert_eq!(tags(&[("k", "1"), ("l", "1"), ("k", "2")]), Err(TagsError::Twice("k".to_owned())));
        let many = |count: usize| Tags::new((0..count).map(|key| (key.to_string(), String::new())).collect());
        assert!(many(TAGS_MAX).is_ok());
        assert_eq!(many(TAGS_MAX + 1), Err(TagsError::TooMany(TAGS_MAX + 1)));
    }
}
