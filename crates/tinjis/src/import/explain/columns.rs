//! Which columns of other tools usually hold what an import needs, and what their statuses usually mean. Proposals for a
//! person to read, from lists of names; nothing is imported by them.

use billing::import_row::FIELDS;

use super::super::header::may_be_status;

/// Candidates for each field, best first, as places among the names.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    pub(super) fields: [Vec<usize>; FIELDS.len()],
}

/// Names as tools write them, letters and digits only; the best first.
const KNOWN: [&[&str]; 4] = [
    &[
        "reference",
        "invoicenumber",
        "invoiceno",
        "invoicenum",
        "invoicereference",
        "documentnumber",
        "rechnungsnummer",
        "rechnungsnr",
        "belegnummer",
        "belegfeld1",
        "fakturanummer",
        "ordernumber",
        "number",
        "invoiceid",
        "invoice",
        "id",
        "name",
    ],
    &[
        "customerid",
        "customernumber",
        "customerno",
        "clientid",
        "accountcode",
        "accountnumber",
        "userid",
        "kundennummer",
        "kundennr",
        "kundenummer",
        "kundnummer",
        "debitorennummer",
        "debitor",
        "konto",
        "customer",
        "account",
    ],
    &[
        "currency",
        "currencycode",
        "ordercurrency",
        "invoicecurrency",
        "w\u{e4}hrung",
        "waehrung",
        "wkzumsatz",
        "valuta",
        "devise",
        "moneda",
    ],
    &[
        "amountdue",
        "amountremaining",
        "balance",
        "balancedue",
        "invoicetotal",
        "ordertotal",
        "total",
        "totalamount",
        "grandtotal",
        "amount",
        "betrag",
        "bruttobetrag",
        "gesamtbetrag",
        "umsatzohnesollhabenkz",
        "bel\u{f8}b",
        "belopp",
        "montant",
        "importe",
    ],
];

/// Looks for names; our own name beats all others.
pub(super) fn mapping(names: &[String]) -> Mapping {
    let plain: Vec<String> = names.iter().map(|name| plain(name)).collect();
    let mut mapping = Mapping::default();
    for (field, known) in KNOWN.iter().enumerate() {
        let own = names.iter().position(|name| name.trim().eq_ignore_ascii_case(FIELDS[field]));
        let found = known.iter().filter_map(|known| plain.iter().position(|name| name == known));
        for at in own.into_iter().chain(found) {
            if !mapping.fields.iter().any(|used| used.contains(&at)) {
                mapping.fields[field].push(at);
            }
        }
    }
    mapping.fields[4] = (0..names.len())
        .filter(|at| may_be_status(&names[*at]) && !mapping.fields.iter().any(|used| used.contains(at)))
        .collect();
    mapping
}

fn plain(name: &str) -> String {
    name.to_lowercase().chars().filter(|character| character.is_alphanumeric()).collect()
}

/// What a status usually means.
pub(super) fn meaning(status: &str) -> Option<&'static str> {
    match plain(status).as_str() {
        "pending" | "open" | "unpaid" | "notpaid" | "pastdue" | "overdue" | "paymentdue" | "due"
        | "offen" | "f\u{e4}llig" => Some("PENDING"),
        "paid" | "completed" | "closed" | "settled" | "bezahlt" => Some("PAID"),
        "void" | "voided" | "cancelled" | "canceled" | "draft" | "deleted" | "storniert" | "entwurf" => {
            Some("SKIP")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(header: &str) -> [Option<String>; 5] {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        mapping(&names).fields.map(|found| found.first().map(|at| names[*at].clone()))
    }

    #[test]
    fn usual_names_are_found_and_our_own_come_first() {
        let names = |found: [&str; 5]| found.map(|name| (!name.is_empty()).then(|| name.to_owned()));
        assert_eq!(
            mapped("ID,Invoice Number,Customer ID,Currency Code,Total,Balance,Invoice Status"),
            names(["Invoice Number", "Customer ID", "Currency Code", "Balance", "Invoice Status"])
        );
        assert_eq!(
            mapped("Umsatz (ohne Soll/Haben-Kz),WKZ Umsatz,Konto,Belegfeld 1"),
            names(["Belegfeld 1", "Konto", "WKZ Umsatz", "Umsatz (ohne Soll/Haben-Kz)", ""])
        );
        assert_eq!(mapped("amount,total,reference,id")[0].as_deref(), Some("reference"));
        assert_eq!(mapped("amount,total,reference,id")[3].as_deref(), Some("amount"));
    }
}
