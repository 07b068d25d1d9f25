//! Tests of accepted CSV files, and of refused ones with the line of the mistake.

use super::*;

const HEADER: &str = "reference,customer_id,currency,amount\n";

/// The line and the first column, or the fault, of each row.
fn read(file: impl AsRef<[u8]>) -> Vec<(u64, Result<String, Fault>)> {
    let file = file.as_ref();
    let mut rows = CsvRows::open(file, &Dialect::default()).unwrap();
    let mut all = Vec::new();
    loop {
        match rows.next() {
            Ok(None) => return all,
            Ok(Some((line, row))) => all.push((line, row.map(|values| format!("{:?}", values[0])))),
            Err(fault) => {
                all.push((fault.line, Err(fault)));
                return all;
            }
        }
    }
}

fn text(value: &str) -> Result<String, Fault> {
    Ok(format!("{:?}", Value::Text(Cow::Borrowed(value))))
}

#[test]
fn quotes_crlf_and_line_breaks_in_fields_keep_the_line_right() {
    let file = "Reference , customer_id,currency,amount\r\n\"a,\"\"b\"\"\",1,EUR,1\r\n\"x\ny\",1,EUR,1\r\nlast,1,EUR,1";
    let expected = [(2, text("a,\"b\"")), (3, text("x\ny")), (5, text("last"))];
    assert_eq!(read(file), expected);
    assert_eq!(read(file.replace("\r\n", "\n")), expected);
    assert_eq!(read(file.replace("\r\n", "\r")), expected);
    assert_eq!(read(format!("\u{feff}{file}\r\n")), expected);
}

#[test]
fn a_carriage_return_inside_quotes_stays_what_it_is() {
    let file = format!("{HEADER}\"a\rb\",1,EUR,1\r\n\"c\r\nd\",1,EUR,1\r\nlast,1,EUR,1\r\n");
    assert_eq!(read(file), [(2, text("a\rb")), (3, text("c\r\nd")), (5, text("last"))]);
}

#[test]
fn empty_lines_are_passed_over_and_counted() {
    let file = format!("{HEADER}\n\nI1,1,EUR,1\r\n\r\n\r\nI2,1,EUR,1\n\n");
    assert_eq!(read(file), [(4, text("I1")), (7, text("I2"))]);
}

#[test]
fn columns_may_stand_in_any_order() {
    let mut rows = CsvRows::open(
        &b"amount,status,currency,reference,customer_id\n1,PAID,EUR,I1,7\n"[..],
        &Dialect::default(),
    )
    .unwrap();
    let (_, values) = rows.next().unwrap().unwrap();
    let expected = ["I1", "7", "EUR", "1", "PAID"].map(|text| Value::Text(Cow::Borrowed(text)));
    assert_eq!(values.unwrap(), expected);
}

#[test]
fn a_header_with_mistakes_names_all_of_them() {
    let reason = |file: &str| CsvRows::open(file.as_bytes(), &Dialect::default()).err().unwrap().reason;
    let several = reason("reference,customer_id,stauts,reference\n");
    for part in
        ["\"stauts\" is no column", "reference stands twice", "currency is missing", "amount is missing"]
    {
        assert!(several.contains(part), "{several}");
    }
    assert!(reason("reference;customer_id;currency;amount\n").contains("separated by commas"));
    assert!(reason("").contains("empty"));
}

#[test]
fn rows_of_another_width_and_bad_utf_8_are_single_faults() {
    let mut file = format!("{HEADER}short,1\nI2,1,EUR,1,more\n").into_bytes();
    file.extend_from_slice(b"\xff\xfe,1,EUR,1\ngood,1,EUR,1\n");
    let rows = read(file);
    assert_eq!(rows[0].1.as_ref().unwrap_err().reason, "has 2 fields where the header has 4");
    assert_eq!(rows[1].1.as_ref().unwrap_err().line, 3);
    assert!(rows[2].1.as_ref().unwrap().starts_with("Bad(\"is not UTF-8 text"), "{rows:?}");
    assert_eq!(rows[3], (5, text("good")));
}

#[test]
fn a_huge_field_is_one_fault_and_an_unclosed_quote_ends_the_file() {
    let huge = "x".repeat(ROW_BYTES_MAX + 1);
    let rows = read(format!("{HEADER}{huge},1,EUR,1\ngood,1,EUR,1\n"));
    assert!(rows[0].1.as_ref().unwrap_err().reason.contains("longer"));
    assert_eq!(rows[1], (3, text("good")));

    let open = format!("{HEADER}good,1,EUR,1\n\"open,1,EUR,1\n{}", "more,1,EUR,1\n".repeat(100_000));
    let rows = read(open);
    assert_eq!(rows.len(), 2);
    let fault = rows[1].1.as_ref().unwrap_err();
    assert_eq!(fault.line, 3);
    assert!(fault.reason.contains(TOO_LONG), "{fault:?}");
}

#[test]
fn a_quote_that_is_open_at_the_end_is_reported_with_the_line_where_its_row_began() {
    for (rest, good, line) in [
        ("\"open", 0, 2),
        ("\"open,1,EUR,1\n", 0, 2),
        ("I1,1,EUR,1\n\n\"open,1,EUR,1\r\nmore,1,EUR,1\r\n", 1, 4),
        ("I1,1,EUR,1\n\"x\ny\",1,EUR,\"1", 1, 3),
    ] {
        let rows = read(format!("{HEADER}{rest}"));
        assert_eq!(rows.len(), good + 1, "{rest:?}: {rows:?}");
        let fault = rows[good].1.as_ref().unwrap_err();
        assert_eq!(fault.line, line, "{rest:?}: {fault:?}");
        assert!(fault.reason.contains("not closed before"), "{rest:?}: {fault:?}");
    }
    assert_eq!(CsvRows::open(&b"reference,\"customer"[..], &Dialect::default()).err().unwrap().line, 1);
    assert_eq!(read(format!("{HEADER}\"x\n\",1,EUR,1")), [(2, text("x\n"))]);
    assert_eq!(read(format!("{HEADER}I1,1,EUR,\"x\n\"\n")), [(2, text("I1"))]);
}

#[test]
fn text_behind_a_closing_quote_is_a_fault_of_its_row_alone() {
    let file = format!(
        "{HEADER}\"a\"\"b\",1,EUR,1\nmid\"dle,1,EUR,1\n\"abc\"x,1,EUR,1\r\n\"x\ny\" ,1,EUR,1\nlast,1,EUR,1\n"
    );
    let rows = read(file);
    let good: Vec<_> = rows.iter().map(|(line, row)| (*line, row.is_ok())).collect();
    assert_eq!(good, [(2, true), (3, true), (4, false), (5, false), (7, true)], "{rows:?}");
    assert_eq!(rows[1].1, text("mid\"dle"));
    assert!(rows[2].1.as_ref().unwrap_err().reason.contains("written twice"));
}

#[test]
fn lines_above_the_header_and_the_separator_line_are_passed_over_and_counted() {
    let read = |file: &str, profile: &str| {
        let mut rows = CsvRows::open(file.as_bytes(), &super::super::settings::dialect(profile))
            .map_err(|fault| fault.reason)?;
        let row = rows.next().unwrap().map(|(line, row)| (line, row.is_ok()));
        Ok::<_, String>(row)
    };
    let rows = HEADER.replace(',', ";") + "a;1;EUR;1\n";
    assert_eq!(read(&format!("sep=;\r\n{rows}"), "delimiter = ';'"), Ok(Some((3, true))));
    assert_eq!(read(&format!("\"sep=;\"\r{rows}"), "delimiter = ';'"), Ok(Some((3, true))));
    assert_eq!(read(&format!("x\r\ny\r\n{rows}"), "delimiter = ';'\nskip-lines = 2"), Ok(Some((4, true))));
    assert!(read(&format!("sep=;\n{rows}"), "").unwrap_err().contains("--delimiter ';'"));
    assert!(read(&format!("sep=\t\n{rows}"), "delimiter = ';'").unwrap_err().contains("'\\t'"));
    assert!(read("x\n", "skip-lines = 5").unwrap_err().contains("is empty"));
}

#[test]
fn a_file_without_a_header_row_has_the_columns_that_are_named_for_it() {
    let profile = "header = ['No', 'Account', 'Date', 'Total', 'Cur']\nignore-unknown-columns = true\n[map]\n\
                   reference = 'No'\ncustomer_id = 'Account'\namount = 'Total'\ncurrency = 'Cur'";
    let dialect = super::super::settings::dialect(profile);
    let mut rows = CsvRows::open(&b"a,1,20261101,12.15,EUR\nb,1,EUR\n"[..], &dialect).unwrap();
    assert_eq!(rows.ignored(), ["Date"]);
    let (line, values) = rows.next().unwrap().unwrap();
    let shown = values.map(|values| format!("{:?} {:?}", values[0], values[3]));
    assert_eq!((line, shown), (1, Ok("Text(\"a\") Text(\"12.15\")".to_owned())));
    let (line, short) = rows.next().unwrap().unwrap();
    assert_eq!((line, short.is_err()), (2, true));
    let misspelt =
        super::super::settings::dialect("header = ['reference', 'customer', 'currency', 'amount']");
    let why = CsvRows::open(&b"a,1,EUR,1\n"[..], &misspelt).err().unwrap().reason;
    assert!(why.contains("\"customer\" is no column"), "{why}");
}

#[test]
fn a_file_without_a_last_line_end_is_noticed() {
    for (end, expected) in [("", true), ("\n", false), ("\r\n", false), ("\r", false)] {
        let file = format!("{HEADER}I1,1,EUR,1{end}");
        let mut rows = CsvRows::open(file.as_bytes(), &Dialect::default()).unwrap();
        while rows.next().unwrap().is_some() {}
        assert_eq!(rows.ends_in_mid_line(), expected, "{end:?}");
    }
}

/// For any file, reading ends without a panic.
#[test]
fn fuzz_csv_files() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/src/import/corpus");
    testkit::fuzz::Corpus::read("files to import", corpus).run(|input| {
        if let Ok(mut rows) = CsvRows::open(input, &Dialect::default()) {
            while let Ok(Some((line, values))) = rows.next() {
                let place = super::super::row::Place { line, index: None };
                let _row = values
                    .map(|values| super::super::row::validate_invoice(place, &values, &Dialect::default()));
            }
        }
        let start: super::super::file::Start = Box::new(std::io::Cursor::new(input.to_vec()));
        let mut elements = super::super::json::ArrayRows::new(start, &Dialect::default());
        while let Ok(Some(element)) = elements.next() {
            let _values = element.values();
        }
    });
}
