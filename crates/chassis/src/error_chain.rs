//! An error with its causes as one text, for logs and for operators. Knows no error.

use std::error::Error;

/// The message of an error and of each cause that adds to it.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_added_once() {
        let cause = anyhow::anyhow!("permission denied for table t").context("a statement failed");
        let error = cause.context("a statement failed, so nothing was written");
        assert_eq!(
            error_chain(error.as_ref()),
            "a statement failed, so nothing was written: permission denied for table t"
        );
    }
}
