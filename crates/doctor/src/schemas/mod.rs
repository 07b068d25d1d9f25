//! Validates the doctor's formats against their published schemas in this folder. Knows no format.

mod json_schema;
mod xsd;

use std::time::Duration;

use serde_json::Value;

use crate::formats::Format;
use crate::report::Report;
use crate::report::tests::{report, report_of_objects};

const SARIF: &str = include_str!("sarif-2.1.0.json");
const OPEN_REPORTS: &str = include_str!("openreports-report.json");
const JUNIT: &str = include_str!("junit.xsd");

/// Reports with green, red and inconclusive rows, of checks and of findings about objects.
fn reports() -> [Report; 2] {
    [report(Duration::from_secs(7)), report_of_objects()]
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn sarif_is_valid() {
    for report in reports() {
        let errors = json_schema::validate(&parse(SARIF), &parse(&report.text(Format::Sarif)));
        assert_eq!(errors, [""; 0]);
    }
}

#[test]
fn open_reports_are_valid() {
    for report in reports() {
        let errors = json_schema::validate(&parse(OPEN_REPORTS), &parse(&report.text(Format::OpenReports)));
        assert_eq!(errors, [""; 0]);
    }
}

#[test]
fn junit_is_valid() {
    for report in reports() {
        let errors = xsd::validate(JUNIT, "testsuites", &report.text(Format::Junit));
        assert_eq!(errors, [""; 0]);
    }
}

/// The positive control of the three tests above: each kind of fault is reported.
#[test]
fn documents_with_a_fault_are_refused() {
    let sarif = |change: fn(&mut Value)| {
        let mut document = parse(&report_of_objects().text(Format::Sarif));
        change(&mut document["runs"][0]);
        json_schema::validate(&parse(SARIF), &document)
    };
    let faults: [fn(&mut Value); 5] = [
        |run| run["results"][0]["level"] = Value::from("bad"),
        |run| run["results"][0]["object"] = Value::from("more"),
        |run| run["results"][0]["locations"][0]["logicalLocations"][0]["name"] = Value::from(1),
        |run| drop(run["tool"]["driver"].as_object_mut().unwrap().remove("name")),
        |run| {
            let rules = run["tool"]["driver"]["rules"].as_array_mut().unwrap();
            rules.push(rules[0].clone());
        },
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        assert_eq!(sarif(fault).len(), 1, "fault {at}: {:?}", sarif(fault));
    }
    let mut document = parse(&report_of_objects().text(Format::OpenReports));
    document["results"][0]["severity"] = Value::from("terrible");
    document["results"][1]["resources"][0]["kinds"] = Value::from("x");
    let errors = json_schema::validate(&parse(OPEN_REPORTS), &document);
    assert_eq!(errors.len(), 2, "{errors:?}");
    let junit = report_of_objects().junit();
    for (from, to) in [
        ("name=", "title="),
        ("<failure ", "<defect "),
        ("</testsuites>", "text</testsuites>"),
        ("<testsuites>", "<testsuites><failure/>"),
    ] {
        assert!(!xsd::validate(JUNIT, "testsuites", &junit.replacen(from, to, 1)).is_empty(), "{from}");
    }
}
