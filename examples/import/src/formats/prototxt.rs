//! The text format of protocol buffers, as Caffe's `.prototxt` has it. The crates for it need the description of all messages
//! (`caffe.proto`) and a compiler for it; here a field is what it is called.

use std::str::FromStr;

use crate::model::Fault;

/// How deep messages stand within messages.
const DEEPEST: usize = 16;

/// The fields of a message in the order of the text.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields<'a>(Vec<(&'a str, Field<'a>)>);

#[derive(Debug, Clone)]
enum Field<'a> {
    /// A number, a name or what stands in quotes, as it is written.
    Text(&'a str),
    Message(Fields<'a>),
}

impl<'a> Fields<'a> {
    /// The messages of this name.
    pub(super) fn messages(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.0.iter().filter(move |(key, _)| *key == name).filter_map(|(_, field)| match field {
            Field::Message(fields) => Some(fields),
            Field::Text(_) => None,
        })
    }

    /// The values of this name.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| *key == name).filter_map(|(_, field)| match field {
            Field::Text(text) => Some(*text),
            Field::Message(_) => None,
        })
    }

    /// The value of this name: the last one, as in protocol buffers.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.texts(name).last()
    }

    pub(super) fn numbers<T: FromStr>(&self, name: &str) -> Result<Vec<T>, Fault> {
        self.texts(name).map(|text| text.parse().map_err(|_| format!("{name} is {text:?}"))).collect()
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        Ok(self.numbers(name)?.pop())
    }
}

/// Reads a text as a message.
pub(super) fn parse(text: &str) -> Result<Fields<'_>, Fault> {
    let mut rest = text;
    // The messages that are open, each with its name and the bracket that ends it.
    let mut open: Vec<(&str, char, Fields<'_>)> = Vec::new();
    let mut fields = Fields::default();
    let fault = |rest: &str, what: &str| {
        let line = text[..text.len() - rest.len()].lines().count();
        format!("the .prototxt, line {line}: {what}")
    };
    loop {
        let Some(name) = token(&mut rest) else {
            return if open.is_empty() { Ok(fields) } else { Err(fault(rest, "a message does not end")) };
        };
        if let "}" | ">" = name
            && let Some((outer, end, before)) = open.pop()
        {
            if !name.starts_with(end) {
                return Err(fault(rest, &format!("{name} instead of {end}")));
            }
            let inner = std::mem::replace(&mut fields, before);
            fields.0.push((outer, Field::Message(inner)));
            continue;
        }
        if matches!(name, "," | ";") {
            continue;
        }
        if !name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_') {
            return Err(fault(rest, &format!("{name:?} is no name of a field")));
        }
        let mut value = token(&mut rest);
        let colon = value == Some(":");
        if colon {
            value = token(&mut rest);
        }
        match value {
            Some(bracket @ ("{" | "<")) => {
                if open.len() == DEEPEST {
                    return Err(fault(rest, &format!("messages within messages, deeper than {DEEPEST}")));
                }
                let end = if bracket == "{" { '}' } else { '>' };
                open.push((name, end, std::mem::take(&mut fields)));
            }
            Some("[") if colon => loop {
                match token(&mut rest) {
                    Some("]") => break,
                    Some(",") => {}
                    Some(value) if !is_punctuation(value) => fields.0.push((name, Field::Text(unquoted(value)))),
                    _ => return Err(fault(rest, &format!("the list of {name} is not one of values"))),
                }
            },
            Some(value) if colon && !is_punctuation(value) => fields.0.push((name, Field::Text(unquoted(value)))),
            _ => return Err(fault(rest, &format!("{name} has no value"))),
        }
    }
}

fn is_punctuation(token: &str) -> bool {
    token.starts_with(['{', '}', '<', '>', '[', ']', ':', ',', ';'])
}

/// Without the quotes. What is escaped stays as it is written: names of layers have none.
fn unquoted(token: &str) -> &str {
    let quote = token.chars().next().filter(|char| matches!(char, '"' | '\''));
    quote.and_then(|quote| token.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(token)
}

/// Takes the next word, quoted text or sign.
fn token<'a>(rest: &mut &'a str) -> Option<&'a str> {
    loop {
        *rest = rest.trim_start();
        let Some(comment) = rest.strip_prefix('#') else { break };
        *rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let first = rest.chars().next()?;
    let len = if matches!(first, '"' | '\'') {
        // Up to the quote that ends it, or to the end of the text.
        rest[1..].find(first).map_or(rest.len(), |at| at + 2)
    } else if is_punctuation(rest) {
        1
    } else {
        let ends = |char: char| {
            char.is_whitespace() || matches!(char, '#' | '"' | '\'') || is_punctuation(char.encode_utf8(&mut [0; 4]))
        };
        rest.find(ends).unwrap_or(rest.len())
    };
    let (token, after) = rest.split_at(len);
    *rest = after;
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_with_its_brackets_lists_and_comments() {
        let text = "name: 'a { b' # layer { }\nlayer { type: \"X\" p < pad: [1, 2] pad: 3; eps:1e-3 > } layer: {}";
        let fields = parse(text).expect("a message");
        assert_eq!((fields.text("name"), fields.messages("layer").count()), (Some("a { b"), 2));
        let of = fields.messages("layer").next().and_then(|layer| layer.messages("p").next()).expect("a message");
        assert_eq!((of.numbers("pad"), of.number("eps")), (Ok(vec![1_u32, 2, 3]), Ok(Some(1e-3_f32))));
        assert!(of.number::<u32>("eps").is_err());
        assert_eq!(of.number::<u32>("none"), Ok(None));
    }

    #[test]
    fn a_text_that_is_none_is_refused_with_its_line() {
        for (text, what) in [
            ("a: 1\nb {", "a message does not end"),
            ("a: 1\n}", "\"}\" is no name"),
            ("a < b: 1\n}", "} instead of >"),
            ("a: 1\nb:", "b has no value"),
            ("a: 1\nb 2", "b has no value"),
            ("a: 1\nb: [1, {", "the list of b"),
            ("a: 1\n\u{e9}: 2", "is no name"),
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.contains("line 2") && fault.contains(what), "{text}: {fault}");
        }
        assert!(parse(&"a {".repeat(100_000)).expect_err("deep").contains("deeper"));
        assert!(parse("a: \"open").is_ok());
    }
}
