//! The deployment table: which deployments share the customers, their addresses, and their buckets. Reads the file as a
//! whole, and reports all its mistakes in one message. Calls no service.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use chassis::config::read_regular_text;
use serde::Deserialize;
use uuid::Uuid;

use super::bucket::{BUCKETS, bucket};
use crate::http::BaseUrl;

/// Maximum number of deployments in one table.
const DEPLOYMENTS_MAX: usize = 64;
/// Bytes of its file; the most deployments with the longest paths have half of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A deployment table without mistakes.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
    /// For each bucket, the index of the deployment that gets new references.
    owners: Vec<usize>,
}

/// One deployment.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    pub(crate) billing: BaseUrl,
    pub(crate) payments: BaseUrl,
    /// Replaces the token of the flags.
    pub(crate) billing_token_file: Option<PathBuf>,
    /// Replaces the token of the flags.
    pub(crate) payments_token_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    deployment: Vec<RawEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    id: String,
    billing: String,
    payments: String,
    buckets: Vec<String>,
    billing_token_file: Option<PathBuf>,
    payments_token_file: Option<PathBuf>,
}

impl Table {
    /// Reads a table. Paths of token files are relative to the folder of the table.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn Display| format!("{}: {error}", path.display());
        let text = read_regular_text(path, FILE_BYTES_MAX).map_err(|error| failed(&error))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|error| failed(&error))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let raw: RawTable = toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
        if raw.deployment.is_empty() || raw.deployment.len() > DEPLOYMENTS_MAX {
            return Err(format!(
                "must have 1 to {DEPLOYMENTS_MAX} deployments, not {}",
                raw.deployment.len()
            ));
        }
        let mut mistakes = Vec::new();
        let mut owners = vec![None; BUCKETS.into()];
        let mut entries = Vec::new();
        for (place, raw) in raw.deployment.into_iter().enumerate() {
            let id = raw.id.clone();
            for range in &raw.buckets {
                if let Err(mistake) = take(&mut owners, range, place) {
                    mistakes.push(format!("deployment {id}: buckets: {range:?} {mistake}"));
                }
            }
            match raw.into_entry(folder) {
                Ok(entry) => entries.push(entry),
                Err(mistake) => mistakes.push(format!("deployment {id}: {mistake}")),
            }
        }
        let mut seen = BTreeSet::new();
        for entry in &entries {
            for (field, value) in [("id", entry.id.to_string()), ("billing", entry.billing.to_string())] {
                if !seen.insert((field, value.clone())) {
                    mistakes.push(format!("two deployments have the {field} {value}"));
                }
            }
        }
        let free = owners.iter().filter(|owner| owner.is_none()).count();
        if let Some(first) = owners.iter().position(Option::is_none) {
            mistakes.push(format!(
                "{free} of {BUCKETS} buckets belong to no deployment, the first of them {first}"
            ));
        }
        if mistakes.is_empty() {
            Ok(Self { entries, owners: owners.into_iter().flatten().collect() })
        } else {
            Err(mistakes.join("; "))
        }
    }

    /// The index of the deployment that gets this reference, if no deployment has it yet.
    pub(crate) fn place(&self, reference: &str) -> usize {
        self.owners[usize::from(bucket(reference))]
    }
}

impl RawEntry {
    fn into_entry(self, folder: &Path) -> Result<Entry, String> {
        let url = |field: &str, text: &str| {
            text.parse::<BaseUrl>().map_err(|mistake| format!("{field}: {mistake}"))
        };
        let file = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        Ok(Entry {
            id: self.id.parse().map_err(|_| "id: must be a UUID")?,
            billing: url("billing", &self.billing)?,
            payments: url("payments", &self.payments)?,
            billing_token_file: file(self.billing_token_file),
            payments_token_file: file(self.payments_token_file),
        })
    }
}

/// Gives the buckets of a range, such as `0-511` or `7`, to the deployment at this index.
fn take(owners: &mut [Option<usize>], range: &str, place: usize) -> Result<(), String> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse().ok().filter(|number: &u16| *number < BUCKETS).map(usize::from);
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err(format!("must be a bucket from 0 to {}, or a range such as \"0-511\"", BUCKETS - 1));
    };
    let taken = owners.get_mut(first..=last).ok_or("must not end before it begins")?;
    if let Some(at) = taken.iter().position(Option::is_some) {
        return Err(format!("has bucket {}, which a range before it has", first + at));
    }
    taken.fill(Some(place));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 2] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"];

    fn entry(number: usize, buckets: &str) -> String {
        format!(
            "[[deployment]]\nid = \"{}\"\nbilling = \"http://b{number}\"\npayments = \"http://p{number}\"\n\
             buckets = {buckets}\n",
            IDS[number]
        )
    }

    fn mistake(text: &str) -> String {
        Table::parse(text, Path::new("")).unwrap_err()
    }

    #[test]
    fn each_bucket_leads_to_the_deployment_that_has_it() {
        let text = entry(0, r#"["0-376", "378-1023"]"#) + &entry(1, r#"["377"]"#);
        let table = Table::parse(&text, Path::new("")).unwrap();
        assert_eq!(["I1", "S1", "S1@2026-01-31"].map(|text| table.place(text)), [1, 0, 0]);
        assert_eq!(table.entries[1].billing.to_string(), "http://b1");
        let retired = entry(0, r#"["0-1023"]"#) + &entry(1, "[]");
        assert!(Table::parse(&retired, Path::new("")).is_ok(), "a deployment may have no buckets any more");
    }

    #[test]
    fn token_files_are_relative_to_the_table() {
        let text = entry(0, r#"["0-1023"]"#) + "billing_token_file = 'a'\npayments_token_file = '/b'\n";
        let table = Table::parse(&text, Path::new("/etc/tinjis")).unwrap();
        let entry = &table.entries[0];
        assert_eq!(entry.billing_token_file.as_deref(), Some(Path::new("/etc/tinjis/a")));
        assert_eq!(entry.payments_token_file.as_deref(), Some(Path::new("/b")));
    }

    #[test]
    fn a_table_is_a_regular_file_of_a_limited_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deployments.toml");
        std::fs::write(&path, entry(0, r#"["0-1023"]"#)).unwrap();
        assert!(Table::read(&path).is_ok());
        std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
        assert!(Table::read(&path).unwrap_err().ends_with("deployments.toml: larger than 1048576 bytes"));
        assert_eq!(Table::read(Path::new("/dev/zero")).unwrap_err(), "/dev/zero: not a regular file");
    }

    #[test]
    fn all_mistakes_come_in_one_message() {
        let both = mistake(&(entry(0, r#"["0-9", "9-20"]"#) + &entry(1, r#"["30-22", "5000"]"#)));
        for part in ["bucket 9, which", "\"30-22\" must not", "\"5000\" must be", "1014 of 1024", "them 10"] {
            assert!(both.contains(part), "{part}: {both}");
        }
        let twice = mistake(&(entry(0, r#"["0-511"]"#) + &entry(0, r#"["512-1023"]"#)));
        assert!(twice.contains("the id ") && twice.contains("the billing http://b0"), "{twice}");
        let url = mistake(&entry(0, r#"["0-1023"]"#).replace("http://b0", "b0"));
        assert!(url.contains("billing: must"), "{url}");
        assert!(mistake("deployment = []").contains("1 to 64"));
        assert!(mistake(&(entry(0, r#"["0-1023"]"#) + "bucket = 1")).contains("unknown field"));
    }
}
