//! Markup that is well-formed by construction: an element is closed by whoever opened it, and text of others cannot become
//! markup. What comes out reads as HTML and as XML, so that any parser can check it.
//!
//! Names of elements and attributes are literals of this program; everything else is escaped. That also goes for what
//! deceives a reader rather than a parser ([`quarta_daemon::escape`]).

use quarta_daemon::escape::Escaped;
use std::fmt::{Display, Write};

/// An attribute: a literal name and any value.
pub(super) type Attribute<'a> = (&'static str, &'a dyn Display);

/// A document in the making.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Adds an element around what `inside` adds.
    pub(super) fn element(
        &mut self,
        name: &'static str,
        attributes: &[Attribute<'_>],
        inside: impl FnOnce(&mut Self),
    ) {
        self.tag(name, attributes, ">");
        inside(self);
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// Adds an element without content.
    pub(super) fn empty(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.tag(name, attributes, "/>");
    }

    /// Adds an element that holds only text.
    pub(super) fn words(&mut self, name: &'static str, attributes: &[Attribute<'_>], text: impl Display) {
        self.element(name, attributes, |markup| markup.text(text));
    }

    /// Adds text.
    pub(super) fn text(&mut self, text: impl Display) {
        escape(&mut self.0, &text.to_string());
    }

    /// Starts a new line in the source, for those who read it.
    pub(super) fn line(&mut self) {
        self.0.push('\n');
    }

    /// Adds a part of the program's own as it is, such as a style sheet.
    pub(super) fn own(&mut self, literal: &'static str) {
        self.0.push_str(literal);
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn tag(&mut self, name: &'static str, attributes: &[Attribute<'_>], end: &str) {
        self.0.push('<');
        self.0.push_str(name);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            escape(&mut self.0, &value.to_string());
            self.0.push('"');
        }
        self.0.push_str(end);
    }
}

fn escape(to: &mut String, text: &str) {
    for character in Escaped(text).to_string().chars() {
        match character {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            // No characters at all, to XML.
            '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(to, "{}", character.escape_default());
            }
            character => to.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_stays_text_wherever_it_stands(text in any::<String>()) {
            let mut markup = Markup::default();
            markup.element("p", &[("title", &text)], |markup| {
                markup.words("b", &[], &text);
                markup.empty("br", &[("class", &text)]);
            });
            let page = markup.finish();
            let read = roxmltree::Document::parse(&page).unwrap();
            let p = read.root_element();
            let names: Vec<_> = p.descendants().filter(roxmltree::Node::is_element).map(|node| node.tag_name().name()).collect();
            prop_assert_eq!(names, ["p", "b", "br"]);
            prop_assert_eq!(p.attributes().count(), 1);
        }
    }

    #[test]
    fn text_reads_back_as_it_is_shown() {
        let mut markup = Markup::default();
        markup.words("p", &[("title", &"a\"b'c")], "<b> & \u{202e}x\n");
        let page = markup.finish();
        let read = roxmltree::Document::parse(&page).unwrap();
        assert_eq!(read.root_element().attribute("title"), Some("a\"b'c"));
        assert_eq!(read.root_element().text(), Some("<b> & \\u{202e}x\\n"));
    }
}
