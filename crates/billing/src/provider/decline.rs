//! Parses why a provider refused: the `Decline` header of a refusal, `class=hard|fix|soft|unknown; code=TEXT`, and the
//! columns of a ledger row. Pure. Knows no response table, and not what a class leads to.

use crate::invoice::{Decline, DeclineClass, DeclineCode};

/// The reason in a refused row of the ledger. As in [`parse`], unreadable columns give no reason.
#[must_use]
pub fn of_row(class: Option<&str>, code: Option<&str>) -> Decline {
    let class = class.and_then(|class| class.parse().ok()).unwrap_or(DeclineClass::Unknown);
    Decline { class, code: code.and_then(DeclineCode::new) }
}

/// The reason in a refusal's header; `None` for a header of another form. A wrongly guessed class would either stop an
/// allowed charge or repeat a forbidden one.
#[must_use]
pub fn parse(text: &str) -> Option<Decline> {
    let (class, code) = match text.split_once(';') {
        None => (text, None),
        Some((class, rest)) => (class, Some(rest.trim_start_matches(' ').strip_prefix("code=")?)),
    };
    let class: DeclineClass = class.strip_prefix("class=")?.parse().ok()?;
    let code = match code {
        None => None,
        Some(code) => Some(DeclineCode::new(code)?),
    };
    Some(Decline { class, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decline(class: DeclineClass, code: &str) -> Decline {
        Decline { class, code: DeclineCode::new(code) }
    }

    #[test]
    fn each_class_is_read_with_its_code() {
        for &class in DeclineClass::ALL {
            let header = format!("class={class}; code=insufficient_funds");
            assert_eq!(parse(&header), Some(decline(class, "insufficient_funds")), "{header}");
        }
        assert_eq!(parse("class=soft;code=AM04"), Some(decline(DeclineClass::Soft, "AM04")));
        assert_eq!(parse("class=hard"), Some(Decline { class: DeclineClass::Hard, code: None }));
    }

    #[test]
    fn what_has_another_form_is_not_read() {
        let long = format!("class=soft; code={}", "a".repeat(65));
        for header in [
            "",
            "?",
            "soft",
            "class=",
            "class=SOFT; code=a",
            "class=softer; code=a",
            "class=soft; code=",
            "class=soft;",
            "class=soft; kode=a",
            "class=soft; code=a; code=b",
            "class=soft; code=two words",
            "class=soft; code=\"a\"",
            "class=soft; code=é",
            "code=a; class=soft",
            " class=soft; code=a",
            "class = soft; code=a",
            &long,
        ] {
            assert_eq!(parse(header), None, "{header:?}");
        }
        assert_eq!(Decline::default(), Decline { class: DeclineClass::Unknown, code: None });
    }
}
