//! The settings of how a file is written: flags of `import`, the same settings in a profile, and both together as one
//! checked dialect. Nothing here is guessed from a file. Knows no file and no row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use billing::money::Currency;
use encoding_rs::Encoding;
use serde::Deserialize;

use chassis::config::{Problems, read_regular_text};

use super::amount;
use super::file::Format;
use super::target::Target;

/// Maximum length of a profile, in bytes.
const PROFILE_BYTES_MAX: u64 = 64 * 1024;

/// Maximum number of lines above a header that may be skipped.
const SKIP_LINES_MAX: u32 = 1000;

/// Settings as they were given: on the command line, or in a profile under the same names.
#[derive(Clone, Debug, Default, clap::Args, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// How the file is written, if its name does not say so: csv, json or ndjson
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Which of the file's columns or fields hold what is needed: reference=Invoice No,amount=Total; an empty SOURCE means none
    #[arg(long, value_name = "COLUMN=SOURCE,…", value_parser = parse_assignments)]
    map: Option<Assignments>,
    /// What the file's statuses mean: open=PENDING,paid=PAID,void=SKIP; SKIP leaves the row out
    #[arg(long, value_name = "VALUE=STATUS,…", value_parser = parse_assignments)]
    status: Option<Assignments>,
    /// What separates fields of a CSV file: one ASCII character, or tab [default: ,]
    #[arg(long, value_name = "C")]
    delimiter: Option<String>,
    /// Amounts have a decimal comma: 12,15
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    decimal_comma: Option<bool>,
    /// What groups thousands in amounts: one character, or space [default: amounts are not grouped]
    #[arg(long, value_name = "C")]
    thousands: Option<String>,
    /// Amounts are whole numbers of their currency's minor units: 1215 is 12.15 EUR, 1215 JPY or 1.215 KWD
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    minor_units: Option<bool>,
    /// The currency of every row; a row that says another one is an error
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
    /// Pass over columns and fields that are not needed; without it they are errors
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ignore_unknown_columns: Option<bool>,
    /// The file's encoding by its WHATWG name, like windows-1252 or utf-16le [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Lines above the header of a CSV file that are passed over [default: 0]
    #[arg(long, value_name = "N")]
    skip_lines: Option<u32>,
    /// Names of the columns, in their order, of a CSV file without a header row [default: the first row has them]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    header: Option<Vec<String>>,
    /// The field of a JSON object that holds the array of rows [default: the file is the array]
    #[arg(long, value_name = "FIELD")]
    records: Option<String>,
}

/// How a file is written: by a profile, and by flags that beat it.
#[derive(Debug, clap::Args)]
pub(crate) struct FileSettings {
    /// TOML file with the settings of how the file is written, by the names of their flags; a flag beats it
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl FileSettings {
    /// Resolves the format and the dialect of a file for this target.
    pub(crate) fn resolve(
        self,
        file: &Path,
        target: &'static Target,
        problems: &mut Problems,
    ) -> Option<(Format, Dialect)> {
        let profile = self.profile.map(|path| Settings::of_profile(&path)).transpose();
        let profile = profile.map_err(|why| problems.add("--profile", why)).ok()?.unwrap_or_default();
        let settings = self.settings.with_profile(profile);
        let dialect = settings.check(target, |setting, why| problems.add(setting, why));
        let format = settings.format(file).map_err(|why| problems.add("FILE", why)).ok()?;
        settings.check_format(format, |setting, why| problems.add(setting, why));
        Some((format, dialect))
    }
}

/// `NAME=VALUE` pairs.
pub(crate) type Assignments = BTreeMap<String, String>;

/// Parses `A=x,B=y`. A piece without `=` continues the value before it, so that names may contain commas.
fn parse_assignments(text: &str) -> Result<Assignments, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for piece in text.split(',') {
        match (piece.split_once('='), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.trim().to_owned(), value.trim().to_owned())),
            (None, Some((_, value))) => *value = format!("{value},{piece}"),
            (None, None) => return Err("must be NAME=VALUE pairs with commas between them".to_owned()),
        }
    }
    let count = pairs.len();
    let map: Assignments = pairs.into_iter().collect();
    if map.len() == count { Ok(map) } else { Err("names something twice".to_owned()) }
}

/// The meaning of a status in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Pending,
    Paid,
    /// Leave the row out.
    Skip,
}

/// The column or field that a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// The column or field with our name.
    #[default]
    Own,
    /// The column or field that the user mapped.
    Named(String),
    /// No column, as the user decided.
    Absent,
}

/// The checked settings of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialect {
    /// The kind of the rows.
    pub(crate) target: &'static Target,
    /// Sources by the columns of the target; columns beyond the last source have our names.
    sources: Vec<Source>,
    pub(crate) statuses: Option<BTreeMap<String, Meaning>>,
    pub(crate) delimiter: Option<u8>,
    pub(crate) decimal_comma: bool,
    pub(crate) thousands: Option<char>,
    pub(crate) minor_units: bool,
    pub(crate) currency: Option<Currency>,
    pub(crate) ignore_unknown_columns: bool,
    pub(crate) encoding: Option<NamedEncoding>,
    pub(crate) skip_lines: u32,
    /// Column names for a file without a header row.
    pub(crate) header: Option<Vec<String>>,
    pub(crate) records: Option<String>,
}

/// An encoding; for a plain `utf-16` the file's byte order mark decides the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedEncoding {
    pub(crate) encoding: &'static Encoding,
    pub(crate) order_by_mark: bool,
}

impl Dialect {
    /// Our own format for rows of the target.
    pub(crate) fn for_target(target: &'static Target) -> Self {
        Self { target, ..Self::default() }
    }

    /// The name of a field in the file.
    pub(crate) fn source(&self, field: usize) -> Option<&str> {
        match self.sources.get(field) {
            None | Some(Source::Own) => Some(self.target.fields[field]),
            Some(Source::Named(name)) => Some(name),
            Some(Source::Absent) => None,
        }
    }

    /// Whether `--status` says what the field's values mean.
    pub(crate) fn has_meanings(&self, field: usize) -> bool {
        self.target.status == Some(field) && self.statuses.is_some()
    }

    /// Whether the field was mapped: then the value comes from another tool, with the conventions of that tool.
    pub(crate) fn is_mapped(&self, field: usize) -> bool {
        matches!(self.sources.get(field), Some(Source::Named(_)))
    }
}

impl Settings {
    /// Reads a profile.
    pub(crate) fn of_profile(path: &Path) -> Result<Self, String> {
        let text = read_regular_text(path, PROFILE_BYTES_MAX)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {}", path.display(), error.to_string().trim()))
    }

    /// These settings; the profile supplies those that are unset.
    pub(crate) fn with_profile(self, profile: Self) -> Self {
        let merged = |over: Option<Assignments>, under: Option<Assignments>| match (over, under) {
            (Some(over), Some(mut under)) => {
                under.extend(over);
                Some(under)
            }
            (over, under) => over.or(under),
        };
        Self {
            format: self.format.or(profile.format),
            map: merged(self.map, profile.map),
            status: merged(self.status, profile.status),
            delimiter: self.delimiter.or(profile.delimiter),
            decimal_comma: self.decimal_comma.or(profile.decimal_comma),
            thousands: self.thousands.or(profile.thousands),
            minor_units: self.minor_units.or(profile.minor_units),
            currency: self.currency.or(profile.currency),
            ignore_unknown_columns: self.ignore_unknown_columns.or(profile.ignore_unknown_columns),
            encoding: self.encoding.or(profile.encoding),
            skip_lines: self.skip_lines.or(profile.skip_lines),
            header: self.header.or(profile.header),
            records: self.records.or(profile.records),
        }
    }

    /// The format that was given, or the format by the file's name.
    pub(crate) fn format(&self, file: &Path) -> Result<Format, String> {
        let Some(name) = &self.format else {
            let hint = "must end in .csv, .json or .ndjson, or --format must say what it is";
            return Format::of(file).ok_or_else(|| format!("{} {hint}", file.display()));
        };
        Format::of(&PathBuf::from(format!("x.{name}")))
            .ok_or_else(|| "--format must be csv, json or ndjson".to_owned())
    }

    /// A setting of another format would have no effect: lines that it passes over would be imported.
    fn check_format(&self, format: Format, mut mistake: impl FnMut(&'static str, String)) {
        for (setting, of, is_given) in [
            ("--delimiter", Format::Csv, self.delimiter.is_some()),
            ("--skip-lines", Format::Csv, self.skip_lines.is_some_and(|lines| lines > 0)),
            ("--header", Format::Csv, self.header.is_some()),
            ("--records", Format::Json, self.records.is_some()),
        ] {
            if is_given && of != format {
                let why =
                    format!("belongs to {of}, and the file is {format}: leave it out, or give --format {of}");
                mistake(setting, why);
            }
        }
    }

    /// Checks all settings and reports each mistake with its setting.
    pub(crate) fn check(
        &self,
        target: &'static Target,
        mut mistake: impl FnMut(&'static str, String),
    ) -> Dialect {
        let mut take = |setting, result: Result<(), String>| {
            if let Err(why) = result {
                mistake(setting, why);
            }
        };
        let mut dialect = Dialect {
            target,
            sources: vec![Source::Own; target.fields.len()],
            decimal_comma: self.decimal_comma.unwrap_or(false),
            minor_units: self.minor_units.unwrap_or(false),
            ignore_unknown_columns: self.ignore_unknown_columns.unwrap_or(false),
            skip_lines: self.skip_lines.unwrap_or(0),
            header: self.header.clone(),
            records: self.records.clone(),
            ..Dialect::default()
        };
        take("--map", self.map.as_ref().map_or(Ok(()), |map| dialect.map(map)));
        let statuses = self.status.as_ref().map(parse_meanings).transpose();
        take("--status", statuses.map(|statuses| dialect.statuses = statuses));
        if target.status.is_none() && self.status.is_some() {
            take("--status", Err(format!("has no meaning for {}, which have no status", target.name)));
        }
        let delimiter = self.delimiter.as_deref().map(parse_delimiter).transpose();
        take("--delimiter", delimiter.map(|delimiter| dialect.delimiter = delimiter));
        let thousands = self.thousands.as_deref().map(parse_thousands_separator).transpose();
        take("--thousands", thousands.map(|thousands| dialect.thousands = thousands));
        let currency = self.currency.as_deref().map(billing::import_row::parse_currency).transpose();
        take("--currency", currency.map(|currency| dialect.currency = currency));
        let encoding = self.encoding.as_deref().map(parse_encoding).transpose();
        take("--encoding", encoding.map(|encoding| dialect.encoding = encoding));
        take("--thousands", dialect.check_separators());
        if dialect.skip_lines > SKIP_LINES_MAX {
            take("--skip-lines", Err(format!("must be at most {SKIP_LINES_MAX}")));
        }
        dialect
    }
}

impl Dialect {
    fn map(&mut self, map: &Assignments) -> Result<(), String> {
        for (field, source) in map {
            let at = self.target.fields.iter().position(|known| known == field);
            let at = at.ok_or_else(|| {
                format!("{field:?} is no column of ours: map {}", self.target.fields.join(", "))
            })?;
            self.sources[at] = if source.is_empty() { Source::Absent } else { Source::Named(source.clone()) };
        }
        let mut named: Vec<&str> =
            (0..self.target.fields.len()).filter_map(|field| self.source(field)).collect();
        named.sort_unstable();
        match named.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("{:?} is the source of two columns", pair[0])),
            None => Ok(()),
        }
    }

    fn check_separators(&self) -> Result<(), String> {
        let decimal = if self.decimal_comma { ',' } else { '.' };
        match self.thousands {
            Some(thousands) if thousands == decimal => Err(format!(
                "{thousands:?} is the decimal separator{}",
                if self.decimal_comma {
                    " of --decimal-comma"
                } else {
                    "; give --decimal-comma if it is not"
                }
            )),
            Some(_) if self.minor_units => Err("cannot stand beside --minor-units".to_owned()),
            _ if self.decimal_comma && self.minor_units => {
                Err("not given, but --decimal-comma cannot stand beside --minor-units".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn parse_meanings(given: &Assignments) -> Result<BTreeMap<String, Meaning>, String> {
    let meaning = |(value, word): (&String, &String)| match word.as_str() {
        "PENDING" => Ok((value.clone(), Meaning::Pending)),
        "PAID" => Ok((value.clone(), Meaning::Paid)),
        "SKIP" => Ok((value.clone(), Meaning::Skip)),
        other => Err(format!("{value:?} must mean PENDING, PAID or SKIP, not {other:?}")),
    };
    given.iter().map(meaning).collect()
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n\0".contains(byte) => {
            Ok(*byte)
        }
        _ => Err("must be one ASCII character that is no letter, digit or quote, or the word tab".to_owned()),
    }
}

fn parse_thousands_separator(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        _ if text == "space" => Ok(' '),
        (Some(character), None) if amount::is_space(character) => Ok(' '),
        (Some(character), None) if amount::is_apostrophe(character) => Ok('\''),
        (Some(character @ ('.' | ',' | '_')), None) => Ok(character),
        _ => Err("must be one of . , ' _ or the word space".to_owned()),
    }
}

fn parse_encoding(name: &str) -> Result<NamedEncoding, String> {
    let encoding = Encoding::for_label_no_replacement(name.as_bytes());
    let encoding = encoding.ok_or_else(|| {
        format!("{name:?} is no encoding of the WHATWG standard; windows-1252, iso-8859-15, utf-16le and others are")
    })?;
    let order_by_mark = ["utf-16", "unicode", "ucs-2"].contains(&name.trim().to_ascii_lowercase().as_str());
    Ok(NamedEncoding { encoding, order_by_mark })
}

#[cfg(test)]
pub(crate) fn dialect(profile: &str) -> Dialect {
    let settings: Settings = toml::from_str(profile).unwrap();
    settings.check(&super::target::INVOICES, |setting, why| panic!("{setting}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::target::{INVOICES, SUBSCRIPTIONS};
    use super::*;

    fn mistakes(profile: &str) -> Vec<(&'static str, String)> {
        let settings: Settings = toml::from_str(profile).unwrap();
        let mut found = Vec::new();
        settings.check(&INVOICES, |setting, why| found.push((setting, why)));
        found
    }

    #[test]
    fn subscriptions_have_columns_of_their_own_and_no_status() {
        let mut found = Vec::new();
        let settings: Settings =
            toml::from_str("map = { starts_on = 'Beginn' }\nstatus = { open = 'SKIP' }").unwrap();
        let dialect = settings.check(&SUBSCRIPTIONS, |setting, why| found.push((setting, why)));
        assert_eq!(dialect.source(10), Some("Beginn"));
        assert_eq!(
            found,
            [("--status", "has no meaning for subscriptions, which have no status".to_owned())]
        );
    }

    #[test]
    fn a_flag_beats_the_profile_and_a_map_is_merged_by_column() {
        let settings = |text: &str| toml::from_str::<Settings>(text).unwrap();
        let flags = settings("delimiter = ';'\ndecimal-comma = false\n[map]\namount = 'Total'");
        let profile = settings(
            "delimiter = ','\ndecimal-comma = true\nencoding = 'utf-16'\n[map]\namount = 'x'\nreference = 'No'",
        );
        let both = flags.with_profile(profile).check(&INVOICES, |setting, why| panic!("{setting}: {why}"));
        assert_eq!((both.delimiter, both.decimal_comma), (Some(b';'), false));
        assert_eq!(
            (both.source(0), both.source(3), both.source(1)),
            (Some("No"), Some("Total"), Some("customer_id"))
        );
        assert!(both.encoding.unwrap().order_by_mark);
    }

    #[test]
    fn names_in_a_map_may_hold_commas() {
        let map = parse_assignments("reference=Invoice No,amount=Total, incl. tax,status=").unwrap();
        let pairs: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("amount", "Total, incl. tax"), ("reference", "Invoice No"), ("status", "")]);
        assert!(parse_assignments("x").is_err() && parse_assignments("a=1,a=2").is_err());
    }

    #[test]
    fn each_mistake_names_its_setting_and_what_is_allowed() {
        for (profile, setting, part) in [
            ("map = { total = 'x' }", "--map", "map reference, customer_id"),
            ("map = { amount = 'x', reference = 'x' }", "--map", "two columns"),
            ("status = { open = 'pending' }", "--status", "PENDING, PAID or SKIP"),
            ("delimiter = ';;'", "--delimiter", "one ASCII"),
            ("delimiter = '\"'", "--delimiter", "quote"),
            ("thousands = '.'", "--thousands", "decimal separator"),
            ("thousands = ','\ndecimal-comma = true", "--thousands", "--decimal-comma"),
            ("thousands = 'x'", "--thousands", "must be one of"),
            ("decimal-comma = true\nminor-units = true", "--thousands", "--minor-units"),
            ("currency = 'XXX'", "--currency", "EUR"),
            ("encoding = 'ebcdic'", "--encoding", "windows-1252"),
            ("skip-lines = 1001", "--skip-lines", "1000"),
        ] {
            let found = mistakes(profile);
            assert!(
                found.iter().any(|(name, why)| *name == setting && why.contains(part)),
                "{profile}: {found:?}"
            );
        }
        assert!(
            toml::from_str::<Settings>("delimeter = ';'").unwrap_err().to_string().contains("unknown field")
        );
    }

    #[test]
    fn settings_of_another_format_are_mistakes() {
        let mistakes = |profile: &str, format| {
            let settings: Settings = toml::from_str(profile).unwrap();
            let mut found = Vec::new();
            settings.check_format(format, |setting, why| {
                assert!(why.contains("leave it out"), "{why}");
                found.push(setting);
            });
            found
        };
        let of_csv = "delimiter = ';'\nskip-lines = 1\nheader = ['a']";
        for format in [Format::Json, Format::Ndjson] {
            assert_eq!(mistakes(of_csv, format), ["--delimiter", "--skip-lines", "--header"]);
        }
        assert!(mistakes(of_csv, Format::Csv).is_empty());
        assert!(mistakes("skip-lines = 0", Format::Json).is_empty());
        for format in [Format::Csv, Format::Ndjson] {
            assert_eq!(mistakes("records = 'data'", format), ["--records"]);
        }
        assert!(mistakes("records = 'data'", Format::Json).is_empty());
    }

    #[test]
    fn without_settings_the_strict_format_holds() {
        let dialect = Settings::default().check(&INVOICES, |setting, why| panic!("{setting}: {why}"));
        let fields = INVOICES.fields;
        let sources: Vec<_> = (0..fields.len()).filter_map(|field| dialect.source(field)).collect();
        assert_eq!(sources, fields);
        assert!(dialect.delimiter.is_none() && dialect.encoding.is_none() && !dialect.ignore_unknown_columns);
    }
}
