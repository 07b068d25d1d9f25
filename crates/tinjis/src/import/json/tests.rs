//! Tests of accepted JSON and NDJSON files, and of refused ones with the place of the mistake.

use proptest::prelude::*;

use super::super::settings::dialect;
use super::*;

type Element = (u64, Option<u64>, Result<Option<String>, String>);

/// Each element's line, index, and reference or fault; and the fault that ended the file.
fn all(mut next: impl FnMut() -> Result<Option<Parsed>, Fault>) -> (Vec<Element>, Option<Fault>) {
    let mut found = Vec::new();
    loop {
        match next() {
            Ok(None) => return (found, None),
            Err(fault) => return (found, Some(fault)),
            Ok(Some(parsed)) => {
                let reference =
                    parsed.values().map_err(|fault| fault.reason).map(|values| match &values[0] {
                        Value::Text(text) | Value::Number(text) => Some(text.to_string()),
                        _ => None,
                    });
                found.push((parsed.place.line, parsed.place.index, reference));
            }
        }
    }
}

fn array(file: &str, profile: &str) -> (Vec<Element>, Option<Fault>) {
    let start: Start = Box::new(io::Cursor::new(file.as_bytes().to_vec()));
    let mut rows = ArrayRows::new(start, &dialect(profile));
    all(|| rows.next())
}

fn lines(file: &str, profile: &str) -> (Vec<Element>, Option<Fault>) {
    let mut rows = NdjsonRows::new(file.as_bytes(), &dialect(profile));
    all(|| rows.next())
}

fn named(line: u64, index: Option<u64>, reference: &str) -> Element {
    (line, index, Ok(Some(reference.to_owned())))
}

#[test]
fn an_array_is_read_by_element_with_lines_and_indexes() {
    let file = "\n[ {\"reference\": \"],}\\\"\"},\n\n {\"reference\":\n\"b\"} , {\"reference\":\"c\"}]\n";
    let expected = [named(2, Some(0), "],}\""), named(4, Some(1), "b"), named(5, Some(2), "c")];
    assert_eq!(array(file, ""), (expected.to_vec(), None));
    assert_eq!(array(" [ ] ", ""), (Vec::new(), None));
}

#[test]
fn an_array_may_stand_in_a_named_field_of_an_object() {
    let file = r#"{"meta":{"data":[1]},"data":[{"reference":"a"}],"more":[2]}"#;
    assert_eq!(array(file, "records = 'data'"), (vec![named(1, Some(0), "a")], None));
    for (file, profile, part) in [
        (r#"{"data":[]}"#, "", "--records data"),
        (r#"{"reference":"a"}"#, "", "--format ndjson"),
        (r#"{"rows":[]}"#, "records = 'data'", "no field"),
        ("[]", "records = 'data'", "is an array"),
        (r#"{"data":[{"reference":"a"}],"data":[]}"#, "records = 'data'", "duplicate field \"data\""),
        (r#"{"data":{}}"#, "records = 'data'", "in the field of --records"),
        ("7", "", "an array of objects"),
    ] {
        let why = array(file, profile).1.unwrap().reason;
        assert!(why.contains(part), "{file}: {why}");
    }
}

#[test]
fn a_broken_array_ends_with_its_place_and_what_to_do() {
    for (file, line, part) in [
        ("", 1, "is it whole?"),
        ("[{},\n,{}]", 2, "expected"),
        ("[{},\n]", 2, "trailing comma: remove it"),
        ("[\n{\"a\":", 2, "is it whole?"),
        ("[{}]\n2", 2, ".ndjson"),
        ("[{}\n{}]", 2, "expected `,` or `]`"),
        ("[1]", 1, "a JSON object for each row"),
        ("[{\"a\":NaN}]", 1, "expected value"),
    ] {
        let fault = array(file, "ignore-unknown-columns = true").1.unwrap();
        assert_eq!(fault.line, line, "{file:?}: {fault:?}");
        assert!(fault.reason.contains(part), "{file:?}: {fault:?}");
    }
}

#[test]
fn objects_with_unknown_or_doubled_fields_are_single_faults() {
    let file = r#"[{"stauts":"PAID","reference":"a"},{"amount":1,"amount":2},{"reference":"c"}]"#;
    let (found, fault) = array(file, "");
    assert_eq!((found.len(), &fault), (3, &None));
    assert!(found[0].2.as_ref().unwrap_err().contains("unknown field \"stauts\""), "{found:?}");
    assert!(found[1].2.as_ref().unwrap_err().contains("duplicate field"), "{found:?}");
    assert_eq!(found[2], named(1, Some(2), "c"));
    let wide = array(
        r#"[{"lines":[{"a":[]}],"No":"x","reference":"y"}]"#,
        "ignore-unknown-columns = true\nmap = { reference = 'No' }",
    );
    assert_eq!(wide, (vec![named(1, Some(0), "x")], None));
}

#[test]
fn half_of_a_surrogate_pair_is_named() {
    let values = |reference: &str| {
        let file = format!(r#"{{"reference":"{reference}"}}"#);
        let mut rows = NdjsonRows::new(file.as_bytes(), &dialect(""));
        format!("{:?}", rows.next().unwrap().unwrap().values().unwrap()[0])
    };
    for lone in [r"A\ud800", r"A\udc00B", r"\ud83d\u0041"] {
        assert!(values(lone).contains("half of a surrogate pair"), "{lone}: {}", values(lone));
    }
    assert!(values(r"\ud83d\ude00").contains('\u{1f600}'));
}

#[test]
fn a_field_that_may_tell_what_is_paid_is_not_passed_over() {
    let line = r#"{"reference":"a","Status":"PAID"}"#;
    let fault = lines(line, "ignore-unknown-columns = true").0.remove(0).2;
    assert!(fault.unwrap_err().contains("may tell what is paid"));
    for map in ["map = { status = '' }", "map = { status = 'Status' }"] {
        let found = lines(line, &format!("ignore-unknown-columns = true\n{map}")).0;
        assert_eq!(found, [named(1, None, "a")], "{map}");
    }
}

#[test]
fn a_status_of_null_is_as_if_it_were_missing() {
    let line = r#"{"reference":"a","status":null,"isPaid":true}"#;
    let fault = lines(line, "ignore-unknown-columns = true").0.remove(0).2;
    assert!(fault.unwrap_err().contains("\"isPaid\" may tell what is paid"));
}

#[test]
fn fields_that_are_passed_over_are_known_once_each_and_to_a_limit() {
    let profile = "ignore-unknown-columns = true\nmap = { status = '' }";
    let file = r#"{"reference":"a","x":1,"isPaid":true}
{"reference":"b","y":1,"x":[2]}"#;
    let mut rows = NdjsonRows::new(file.as_bytes(), &dialect(profile));
    while rows.next().unwrap().is_some() {}
    assert_eq!(rows.names.ignored_fields(), ["isPaid", "x", "y"]);

    let many: Vec<String> = (0..2000).map(|number| format!(r#"{{"f{number}":1}}"#)).collect();
    let start: Start = Box::new(io::Cursor::new(format!("[{}]", many.join(",")).into_bytes()));
    let mut rows = ArrayRows::new(start, &dialect(profile));
    while rows.next().unwrap().is_some() {}
    assert_eq!(rows.names.ignored_fields().len(), IGNORED_FIELDS_MAX);
}

#[test]
fn a_line_that_is_no_object_says_what_to_do() {
    for (line, part) in [
        (&b"{\"reference\":\"\xfc\"}"[..], "--encoding"),
        (b"{\"reference\":\"a\"}\r{\"reference\":\"b\"}", "not with CR alone"),
        (b"{\"reference\":\"a\"} {\"reference\":\"b\"}", "one object stands on each line"),
        (b"\x1e{\"reference\":\"a\"}", "RFC 7464"),
        (b"\xef\xbb\xbf{\"reference\":\"a\"}", "a byte order mark"),
    ] {
        let file = [b"{\"reference\":\"good\"}\n", line, b"\n"].concat();
        let mut rows = NdjsonRows::new(file.as_slice(), &dialect(""));
        let (found, _) = all(|| rows.next());
        assert_eq!(found[0], named(1, None, "good"));
        assert!(found[1].2.as_ref().unwrap_err().contains(part), "{part}: {found:?}");
    }
}

#[test]
fn lines_say_what_other_json_they_look_like() {
    for (line, part) in [
        ("{\"reference\":\"P1\",", "over several lines are a JSON array"),
        ("{\"reference\":\"P1\"},", "no comma between"),
        ("[{\"reference\":\"P1\"}]", "--format json"),
        ("x", "a JSON object is needed"),
    ] {
        let (found, _) = lines(&format!("{line}\n{{\"reference\":\"good\"}}\n"), "");
        assert!(found[0].2.as_ref().unwrap_err().contains(part), "{line}: {found:?}");
        assert_eq!(found[1], named(2, None, "good"));
    }
}

#[test]
fn a_file_of_lines_without_any_is_empty() {
    for file in ["", "\n", " \r\n\n"] {
        assert!(lines(file, "").1.unwrap().reason.contains("empty"), "{file:?}");
    }
}

#[test]
fn an_element_or_a_line_over_the_limit_is_reported() {
    let long = format!("{{\"reference\":\"{}\"}}", "1".repeat(ROW_BYTES_MAX));
    let (found, fault) = array(&format!("[{{\"reference\":\"a\"}},\n{long}]"), "");
    let fault = fault.unwrap();
    assert_eq!((found.len(), fault.line, fault.index), (1, 2, Some(1)), "{fault:?}");
    assert!(fault.reason.contains("is longer than 16384 bytes"), "{fault:?}");
    let (found, fault) = lines(&format!("{long}\n{{\"reference\":\"b\"}}"), "");
    assert_eq!((found.len(), fault), (2, None));
    assert!(found[0].2.as_ref().unwrap_err().contains("is longer"), "{found:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut rows = ArrayRows::new(Box::new(io::Cursor::new(bytes.clone())), &Dialect::default());
        let mut count = 0;
        while let Ok(Some(parsed)) = rows.next() {
            let _ = parsed.values();
            count += 1;
        }
        prop_assert!(count <= bytes.len());
    }
}
