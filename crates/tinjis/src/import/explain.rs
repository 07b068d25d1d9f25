//! `import --explain`: proposes a profile for a file, with the reason for each line. The user reviews, corrects and
//! saves it; the import itself never uses this module. Writes nothing and calls no server.

mod columns;
mod sample;
mod separators;

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use super::file::Format;
use super::header::fold;
use super::row::quote_value;
use super::target::{SUBSCRIPTIONS, Target};
use crate::output;
use anyhow::Context;
use chassis::config::open_regular;
use columns::Mapping;
use sample::Sample;
use separators::Separators;

/// Maximum number of bytes of a file that are read.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Exit code when something necessary was not found.
const INCOMPLETE: u8 = 1;

/// Maximum number of statuses with a proposed meaning.
const STATUSES_MAX: usize = 50;

/// Prints a proposal.
pub(crate) fn command(file: &Path, format: Format, target: &'static Target) -> anyhow::Result<u8> {
    let cannot = || format!("{} cannot be read", file.display());
    let opened = open_regular(file).with_context(cannot)?;
    let mut bytes = Vec::new();
    let read = opened.take(BYTES_MAX).read_to_end(&mut bytes).with_context(cannot)?;
    let sample = match Sample::of(&bytes, read as u64 == BYTES_MAX, format) {
        Ok(sample) => sample,
        Err(why) => {
            output::note(format_args!("{}: {why}", file.display()));
            return Ok(INCOMPLETE);
        }
    };
    let (text, is_complete) = propose(&sample, target);
    text.trim_end().lines().for_each(output::result);
    if !is_complete {
        output::note("the proposal is not complete: see the comments that begin with \"needed\"");
    }
    Ok(if is_complete { 0 } else { INCOMPLETE })
}

/// A profile as text, and whether it is complete.
fn propose(sample: &Sample, target: &'static Target) -> (String, bool) {
    let mapping = columns::mapping(&sample.names, target);
    let mut profile = Profile { text: String::new(), is_complete: true };
    profile.comment(
        "A proposal from the beginning of the file. Read it, correct it, save it, and give it by --profile.",
    );
    for (name, value, why) in &sample.settings {
        profile.comment(why);
        profile.setting(name, value);
    }
    profile.amounts(sample, &mapping);
    profile.currency(sample, &mapping);
    profile.ignored(sample, &mapping);
    profile.map(sample, &mapping);
    profile.statuses(sample, &mapping);
    (profile.text, profile.is_complete)
}

struct Profile {
    text: String,
    is_complete: bool,
}

impl Profile {
    fn line(&mut self, line: impl std::fmt::Display) {
        writeln!(self.text, "{line}").expect("a text can grow");
    }

    fn comment(&mut self, why: &str) {
        // Control characters are removed, so that text of the file cannot leave its comment.
        let why: String =
            why.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
        self.line(format_args!("# {why}"));
    }

    fn needed(&mut self, what: &str) {
        self.is_complete = false;
        self.comment(&format!("needed: {what}"));
    }

    fn setting(&mut self, name: &str, value: &toml::Value) {
        self.line(format_args!("{name} = {value}"));
    }

    fn amounts(&mut self, sample: &Sample, mapping: &Mapping) {
        let Some(at) = mapping.of(mapping.target.amount).first() else { return };
        let texts: Vec<&str> = sample.values(*at).collect();
        match Separators::of(&texts) {
            Separators::Plain { all_whole } if all_whole && !texts.is_empty() => self.comment(
                "all amounts looked at are whole numbers: if they are hundredths (1215 for 12.15), set minor-units = true",
            ),
            Separators::Plain { .. } => {}
            Separators::Named { decimal_comma, thousands, example } => {
                self.comment(&format!("amounts are written like {}", quote_value(&example)));
                if decimal_comma {
                    self.setting("decimal-comma", &true.into());
                }
                if let Some(thousands) = thousands {
                    self.setting("thousands", &thousands.into());
                }
            }
            Separators::Unclear { example } => self.needed(&format!(
                "how amounts are written, like {}: decimal-comma = true, or thousands = \",\" or \".\"",
                quote_value(&example)
            )),
            Separators::NotInThrees { example } => self.needed(&format!(
                "amounts are not grouped in threes, like {}, which is not read: export them without grouping",
                quote_value(&example)
            )),
            Separators::Mixed { comma, point } => self.needed(&format!(
                "amounts are written in more than one way, like {} and {}: export them in one way",
                quote_value(&comma),
                quote_value(&point)
            )),
        }
    }

    fn currency(&mut self, sample: &Sample, mapping: &Mapping) {
        if mapping.of(mapping.target.currency).is_empty() && !sample.names.is_empty() {
            self.needed("no column holds the currency: if it is the same in every row, say it");
            self.comment("currency = \"EUR\"");
        }
    }

    fn ignored(&mut self, sample: &Sample, mapping: &Mapping) {
        let used: Vec<usize> = mapping.fields.iter().filter_map(|found| found.first().copied()).collect();
        let is_same =
            |at: usize, other: usize| at != other && fold(&sample.names[at]) == fold(&sample.names[other]);
        let repeated = used.iter().filter(|at| (0..sample.names.len()).any(|other| is_same(**at, other)));
        for at in repeated {
            let name = quote_value(sample.names[*at].trim());
            self.needed(&format!("{name} stands twice: remove one of them, or rename it"));
        }
        let others: Vec<String> = (0..sample.names.len())
            .filter(|at| !used.contains(at))
            .map(|at| quote_value(&sample.names[at]))
            .collect();
        if !others.is_empty() {
            self.comment(&format!("not needed: {}", others.join(", ")));
            self.setting("ignore-unknown-columns", &true.into());
        }
    }

    fn map(&mut self, sample: &Sample, mapping: &Mapping) {
        self.line("\n[map]");
        let target = mapping.target;
        for (field, found) in mapping.fields.iter().enumerate() {
            let name = target.fields[field];
            let names: Vec<&str> = found.iter().map(|at| sample.names[*at].trim()).collect();
            let Some((first, others)) = names.split_first() else {
                if target.is_required(field) && field != target.currency {
                    self.needed(&format!("the column that holds {name}"));
                }
                continue;
            };
            if !others.is_empty() {
                let others: Vec<String> = others.iter().map(|name| quote_value(name)).collect();
                self.comment(&format!("{name} may also be {}: which is right?", others.join(", ")));
            }
            let example = sample.values(found[0]).next().map(|value| format!(" like {}", quote_value(value)));
            if *first != name || example.is_some() {
                self.comment(&format!(
                    "its values are{}",
                    example.unwrap_or_else(|| " not known".to_owned())
                ));
            }
            self.setting(name, &(*first).into());
        }
        self.customers(sample, mapping);
    }

    fn customers(&mut self, sample: &Sample, mapping: &Mapping) {
        let is_subscription = mapping.target.name == SUBSCRIPTIONS.name;
        if is_subscription && mapping.of(1).is_empty() && mapping.of(2).is_empty() {
            self.needed("the column that holds customer_id or customer_reference");
        }
        if let Some(at) = mapping.of(1).first()
            && let Some(other) =
                sample.values(*at).find(|value| billing::import_row::parse_customer_id(value).is_err())
        {
            let hint = if is_subscription {
                "map the column as customer_reference"
            } else {
                "map a column of numbers"
            };
            self.needed(&format!("customers are whole numbers, and {} is none: {hint}", quote_value(other)));
        }
    }

    fn statuses(&mut self, sample: &Sample, mapping: &Mapping) {
        let Some(status) = mapping.target.status else { return };
        let Some(at) = mapping.of(status).first() else {
            self.comment("no column says what is paid: every row will be charged");
            return;
        };
        let is_own = sample.names[*at].trim() == mapping.target.fields[status];
        let mut values: Vec<&str> = sample.values(*at).chain(sample.has_empty(*at).then_some("")).collect();
        values.sort_unstable();
        values.dedup();
        let is_ours = |value: &&str| ["PENDING", "PAID"].contains(value) || value.is_empty() && is_own;
        if values.iter().all(is_ours) {
            return;
        }
        self.line("\n[status]");
        self.comment("PENDING is charged, PAID is recorded as paid, SKIP is left out; other words of the file are errors");
        for value in values.into_iter().take(STATUSES_MAX) {
            let name = key(value);
            match columns::meaning(value) {
                Some(meaning) => self.setting(&name, &meaning.into()),
                None if value.is_empty() => {
                    self.needed("what a missing or empty status means");
                    self.comment(&format!("{name} = \"PENDING\""));
                }
                None => {
                    self.needed(&format!("what {} means", quote_value(value)));
                    self.comment(&format!("{name} = \"PENDING\""));
                }
            }
        }
    }
}

/// A key of TOML, which stands on one line; JSON's strings are such keys, but for one character.
fn key(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Settings, dialect};
    use super::super::target::INVOICES;
    use super::*;

    fn proposed(file: &[u8], format: Format) -> (String, bool) {
        propose(&Sample::of(file, false, format).unwrap(), &INVOICES)
    }

    #[test]
    fn a_german_export_gets_a_profile_that_reads_it() {
        let file = b"Rechnungsnummer;Kundennummer;Betrag;W\xe4hrung;Status;Notiz\r\nRE-1;10001;1.234,50;EUR;offen;x\r\nRE-2;10002;12,15;EUR;bezahlt;\r\n";
        let (text, is_complete) = proposed(file, Format::Csv);
        assert!(is_complete, "{text}");
        let dialect = dialect(&text);
        assert_eq!(
            (dialect.delimiter, dialect.decimal_comma, dialect.thousands),
            (Some(b';'), true, Some('.'))
        );
        assert_eq!(dialect.encoding.unwrap().encoding.name(), "windows-1252");
        let sources: Vec<_> = (0..5).map(|field| dialect.source(field).unwrap().to_owned()).collect();
        assert_eq!(sources, ["Rechnungsnummer", "Kundennummer", "W\u{e4}hrung", "Betrag", "Status"]);
        assert!(dialect.ignore_unknown_columns && text.contains("not needed: \"Notiz\""), "{text}");
        assert_eq!(dialect.statuses.unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_known_is_left_open() {
        let file = b"Number,Customer,Total,State\nA,Miller,\"1,234\",weird\n";
        let (text, is_complete) = proposed(file, Format::Csv);
        assert!(!is_complete);
        for part in [
            "needed: no column holds the currency",
            "needed: how amounts are written",
            "needed: what \"weird\" means",
            "\"Miller\" is none",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        toml::from_str::<Settings>(&text).unwrap();
    }

    #[test]
    fn a_column_that_stands_twice_and_amounts_written_in_two_ways_are_left_open() {
        let file =
            b"reference,customer_id,currency,amount,Amount\nA,1,EUR,\"1,234.50\",1\nB,1,EUR,\"12,15\",1\n";
        let (text, is_complete) = proposed(file, Format::Csv);
        assert!(!is_complete);
        for part in ["needed: \"amount\" stands twice", "like \"12,15\" and \"1,234.50\""] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn each_status_of_a_file_gets_a_meaning_also_none_and_those_with_quotes_and_line_breaks() {
        let file = br#"[{"reference":"A","customer_id":1,"currency":"EUR","amount":1,"state":"Paid\n"},
            {"reference":"B","customer_id":1,"currency":"EUR","amount":1,"state":"\"it's\" \u007f"},
            {"reference":"C","customer_id":1,"currency":"EUR","amount":1,"paidAt":"x"}]"#;
        let (text, is_complete) = proposed(file, Format::Json);
        assert!(!is_complete && text.contains("needed: what a missing or empty status means"), "{text}");
        assert!(text.contains("\"Paid\\n\" = \"PAID\"") && text.contains("\"paidAt\""), "{text}");
        let saved = text.replace("# \"", "\"");
        assert_eq!(dialect(&saved).statuses.unwrap().len(), 3, "{text}");
    }

    #[test]
    fn a_column_for_what_is_paid_is_never_called_not_needed() {
        for name in ["isPaid", "Paid On", "Bezahlt am", "Statut"] {
            let file = format!("reference,customer_id,currency,amount,{name}\nA,1,EUR,1,x\n");
            let (text, is_complete) = proposed(file.as_bytes(), Format::Csv);
            assert!(!is_complete && text.contains(&format!("status = \"{name}\"")), "{text}");
        }
        let (text, is_complete) =
            proposed(b"reference,customer_id,currency,amount,status\nA,1,EUR,1,\n", Format::Csv);
        assert!(is_complete && !text.contains("[status]"), "an empty status of our own is PENDING: {text}");
    }

    #[test]
    fn amounts_that_no_setting_reads_and_utf_32_are_named() {
        let file = b"reference,customer_id,currency,amount\nA,1,INR,\"1,23,456.00\"\n";
        let (text, is_complete) = proposed(file, Format::Csv);
        assert!(!is_complete && text.contains("not grouped in threes, like \"1,23,456.00\""), "{text}");
        let utf_32: Vec<u8> = "reference\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert!(Sample::of(&utf_32, false, Format::Csv).unwrap_err().contains("UTF-32"));
    }

    #[test]
    fn json_in_an_object_is_explained() {
        let file = br#"{"object":"list","data":[{"id":"in_1","customer_number":7,"currency":"eur","amount_due":1215,"status":"open"}]}"#;
        let (text, is_complete) = proposed(file, Format::Json);
        assert!(is_complete, "{text}");
        let dialect = dialect(&text);
        assert_eq!(dialect.records.as_deref(), Some("data"));
        assert_eq!((dialect.source(0), dialect.source(3)), (Some("id"), Some("amount_due")));
        assert!(text.contains("minor-units"), "{text}");
    }
}
