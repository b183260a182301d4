//! `\Q…\E`, which RE2 knows and Java's `Pattern.quote` writes, in the syntax of the `regex` crate.

use std::borrow::Cow;

/// The pattern with what stands between `\Q` and `\E` (or the end) escaped character by character.
pub(super) fn without_quotes(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(r"\Q") {
        return Cow::Borrowed(pattern);
    }
    let mut plain = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(quoted) = rest.strip_prefix(r"\Q") {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            plain.push_str(&::regex::escape(literal));
            rest = after;
        } else {
            // An escape is a backslash and the character behind it, which may be a backslash too.
            let mut characters = rest.chars();
            plain.extend(characters.by_ref().take(2));
            rest = characters.as_str();
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_escaped_and_the_rest_stays() {
        for (pattern, plain) in [
            (r"a.b\.", r"a.b\."),
            (r"\Qa.b\E", r"a\.b"),
            (r"\Qa.b\E.*\Q+\E", r"a\.b.*\+"),
            (r"x\Qa.b", r"xa\.b"),
            (r"\Q\E", ""),
            // A backslash that is escaped itself opens nothing.
            (r"\\Qa.b\\E", r"\\Qa.b\\E"),
            (r"ö\Q.\Eö\", r"ö\.ö\"),
        ] {
            assert_eq!(without_quotes(pattern), plain, "{pattern}");
        }
    }
}
