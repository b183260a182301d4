//! Regular expressions over topic names, as a member of the KIP-848 protocol may subscribe with.
//!
//! Kafka's coordinator takes RE2's syntax and has it match whole names. The `regex` crate has that syntax
//! but for `\C` and for `\Q…\E`, which is translated; it has some more (character class intersections).
//! Both engines are linear in the name's length, and neither knows look-around or back-references.

use std::{collections::BTreeSet, fmt};

use ::regex::bytes::{Regex, RegexBuilder};
use protocol::TopicName;

use super::quoted::without_quotes;
use crate::coordinator::group::topics::TopicsView;

/// Bytes that a pattern's text may have. Names have 249 at most.
const TEXT_BYTES: usize = 1 << 10;
/// Bytes that a compiled pattern may take. A pattern comes from a client and is kept as long as its
/// group: `(a{1000}){1000}` must not take the broker's memory, and what is matched by a large one takes the
/// time of all groups beside it: up to a step for each of its states and each character of each name.
const COMPILED_BYTES: usize = 64 << 10;
/// Bytes that the engine's cache may take beside it while matching.
const CACHE_BYTES: usize = 256 << 10;
/// How deep a pattern's groups may nest.
const NESTING: u32 = 64;

/// Why a text is no pattern for topics. On the wire: `INVALID_REGULAR_EXPRESSION`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text is not a regular expression of RE2's syntax.
    #[error("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {why}.")]
    Syntax {
        /// The text.
        pattern: String,
        /// What is wrong with it, in one line.
        why: String,
    },
    /// The text is too long.
    #[error("SubscribedTopicRegex is too long: it has {bytes} bytes, and may have {TEXT_BYTES}.")]
    TooLong {
        /// The text's length.
        bytes: usize,
    },
    /// The expression would take too much memory.
    #[error(
        "SubscribedTopicRegex `{pattern}` is too large: compiled it would take more than {COMPILED_BYTES} bytes."
    )]
    TooLarge {
        /// The text.
        pattern: String,
    },
}

/// A compiled regular expression that matches whole topic names. A clone shares it.
#[derive(Clone)]
pub struct TopicPattern {
    pattern: String,
    whole_name: Regex,
}

impl TopicPattern {
    /// Compiles a pattern as a client gave it.
    pub fn compile(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > TEXT_BYTES {
            let bytes = pattern.len();
            return Err(PatternError::TooLong { bytes });
        }
        let unquoted = without_quotes(pattern);
        // First by itself: what is wrong with `a)|(b` must not be hidden by what is put around it.
        build(&unquoted).map_err(|error| refusal(pattern, &error))?;
        let whole_name = build(&format!(r"\A(?:{unquoted})\z")).map_err(|error| refusal(pattern, &error))?;
        Ok(Self {
            pattern: pattern.to_owned(),
            whole_name,
        })
    }

    /// The pattern as the client gave it.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether it matches the whole name.
    pub fn matches(&self, topic: &str) -> bool {
        self.whole_name.is_match(topic.as_bytes())
    }

    /// The names of the topics that it matches; internal topics are topics like others, as in Kafka.
    pub fn resolve(&self, topics: &TopicsView) -> BTreeSet<TopicName> {
        let names = topics.topics().map(|topic| &topic.name);
        names
            .filter(|name| self.matches(name.as_str()))
            .cloned()
            .collect()
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicPattern").field(&self.pattern).finish()
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for TopicPattern {}

fn build(pattern: &str) -> Result<Regex, ::regex::Error> {
    let built = |unicode| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(COMPILED_BYTES)
            .dfa_size_limit(CACHE_BYTES)
            .nest_limit(NESTING)
            .build()
    };
    // Names of topics are ASCII, and so are `\w` and `\d` in RE2. With all that Unicode knows as letters, two
    // of them would be as large as a pattern may be; only what asks for Unicode by name (`\pL`) pays for it.
    match built(false) {
        Err(::regex::Error::Syntax(_)) => built(true),
        built => built,
    }
}

fn refusal(pattern: &str, error: &::regex::Error) -> PatternError {
    let pattern = pattern.to_owned();
    match error {
        ::regex::Error::CompiledTooBig(_) => PatternError::TooLarge { pattern },
        error => {
            // The crate draws the pattern with a marker below; its last line says what is wrong.
            let drawn = error.to_string();
            let why = drawn.lines().last().unwrap_or_default();
            let why = why.trim().trim_start_matches("error: ").to_owned();
            PatternError::Syntax { pattern, why }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::TopicId;
    use uuid::Uuid;

    use super::*;
    use crate::coordinator::group::topics::TopicView;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::compile(text).expect("a pattern")
    }

    #[test]
    fn whole_names_match_and_parts_of_names_do_not() {
        assert!(pattern("a|ab").matches("ab"));
        assert!(!pattern("a").matches("ab"));
        assert!(!pattern("b").matches("ab"));
        assert!(pattern("").matches("") && !pattern("").matches("a"));
        assert!(pattern("^ab$").matches("ab"));
        assert!(pattern("(?i)AB").matches("ab"));
        assert!(pattern(r"\Qa.b\E-[0-9]+").matches("a.b-17"));
        assert!(!pattern(r"\Qa.b\E-[0-9]+").matches("a-b-17"));
    }

    #[test]
    fn what_is_no_expression_of_re2_is_refused_with_a_reason() {
        for bad in [
            "(", "a)|(b", "[a", "*", r"(a)\1", "(?=a)b", "(?<!a)b", r"a{2,1}", r"\",
        ] {
            let error = TopicPattern::compile(bad).expect_err(bad);
            assert!(matches!(error, PatternError::Syntax { .. }), "{bad}: {error}");
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("SubscribedTopicRegex `{bad}` is not a valid")),
                "{text}"
            );
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn large_expressions_are_refused_before_they_take_memory() {
        for large in [
            "(a{1000}){1000}",
            r"(\w{200}){200}",
            &format!("({}", r"\pL{900}|".repeat(50) + "x)"),
        ] {
            let error = TopicPattern::compile(large).expect_err(large);
            assert!(matches!(error, PatternError::TooLarge { .. }), "{error}");
        }
        let deep = "(".repeat(300) + &")".repeat(300);
        assert!(TopicPattern::compile(&deep).is_err());
        let longest = "a".repeat(TEXT_BYTES);
        assert!(pattern(&longest).matches(&longest));
        let error = TopicPattern::compile(&(longest + "a")).expect_err("too long");
        assert_eq!(error, PatternError::TooLong { bytes: 1025 });
    }

    #[test]
    fn usual_expressions_are_small_enough() {
        for usual in [
            r".*",
            r"(?i)orders-[a-z0-9_-]+\.(eu|us|asia)\.v[0-9]+",
            r"\w+",
            r"\w+-\w+\.\w+\.\w+",
            r"\pL+",
            r"[^.]+\.[^.]+\.[^.]+",
            r"(a|b|c|d)-\d{4}-\d{2}-\d{2}",
            r"prefix-.{1,200}",
        ] {
            pattern(usual);
        }
    }

    #[test]
    fn a_comment_cannot_swallow_what_binds_the_pattern_to_whole_names() {
        if let Ok(pattern) = TopicPattern::compile("(?x)a#b") {
            assert!(!pattern.matches("ab") && !pattern.matches("xa"));
        }
    }

    #[test]
    fn a_pattern_resolves_to_the_names_of_a_view() {
        let topic = |id, name| {
            let name = TopicName::new(name).expect("a topic's name");
            TopicView::new(TopicId(Uuid::from_u128(id)), name, vec![BTreeSet::new()])
        };
        let view: TopicsView = [topic(1, "orders-eu"), topic(2, "orders-us"), topic(3, "payments")]
            .into_iter()
            .collect();
        let names = |text| -> Vec<String> {
            let found = pattern(text).resolve(&view);
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("orders-.*"), ["orders-eu", "orders-us"]);
        assert_eq!(names("pay"), Vec::<String>::new());
        assert_eq!(names(".*"), ["orders-eu", "orders-us", "payments"]);
    }
}
