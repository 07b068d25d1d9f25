//! Names of columns in which other tools usually keep what an import needs, and usual meanings of their statuses. These
//! are proposals for a reader; nothing is imported by them. Knows no server.

use super::super::header::{fold, letters_and_digits, status_rank};
use super::super::target::{SUBSCRIPTIONS, Target};

/// Candidates for each field, best first, as indexes of the names.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) target: &'static Target,
    pub(super) fields: Vec<Vec<usize>>,
}

impl Mapping {
    pub(super) fn of(&self, field: usize) -> &[usize] {
        &self.fields[field]
    }
}

/// A field, and its names in other tools, letters and digits only; the best first.
type Known = (&'static str, &'static [&'static str]);

const INVOICE_REFERENCE: Known = (
    "reference",
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
        "fakturanr",
        "num\u{e9}rodefacture",
        "numerodefacture",
        "nfacture",
        "n\u{fa}merodefactura",
        "numerodefactura",
        "ordernumber",
        "number",
        "invoiceid",
        "invoice",
        "facture",
        "factura",
        "id",
        "name",
    ],
);

const SUBSCRIPTION_REFERENCE: Known = (
    "reference",
    &[
        "reference",
        "subscriptionid",
        "subscriptionnumber",
        "subscription",
        "contractnumber",
        "contractid",
        "contract",
        "vertragsnummer",
        "vertragsnr",
        "vertrag",
        "abonummer",
        "abonnementsnummer",
        "abonnement",
        "number",
        "id",
        "name",
    ],
);

const KNOWN: [Known; 11] = [
    (
        "customer_id",
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
            "kundenr",
            "kundnr",
            "num\u{e9}roclient",
            "num\u{e9}rodeclient",
            "codeclient",
            "n\u{fa}merodecliente",
            "numerodecliente",
            "c\u{f3}digocliente",
            "debitorennummer",
            "debitor",
            "konto",
            "customer",
            "client",
            "cliente",
            "account",
        ],
    ),
    (
        "customer_reference",
        &["customerreference", "kundenreferenz", "clientreference", "customername", "kunde"],
    ),
    (
        "currency",
        &[
            "currency",
            "currencycode",
            "ordercurrency",
            "invoicecurrency",
            "w\u{e4}hrung",
            "waehrung",
            "wkzumsatz",
            "valuta",
            "valutakod",
            "devise",
            "monnaie",
            "moneda",
            "divisa",
        ],
    ),
    (
        "amount",
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
            "rechnungsbetrag",
            "umsatzohnesollhabenkz",
            "bel\u{f8}b",
            "belopp",
            "attbetala",
            "montantttc",
            "totalttc",
            "montant",
            "importetotal",
            "importe",
            "monto",
            "price",
            "preis",
        ],
    ),
    ("anchor_day", &["anchorday", "billingday", "dayofmonth", "stichtag", "abrechnungstag"]),
    ("every_months", &["everymonths", "intervalmonths", "interval", "intervall", "monate"]),
    ("zone", &["zone", "timezone", "zeitzone"]),
    ("at", &["at", "timeofday", "uhrzeit"]),
    ("starts_on", &["startson", "startdate", "start", "beginn", "startdatum", "vertragsbeginn"]),
    ("ends_on", &["endson", "enddate", "end", "ende", "enddatum", "vertragsende"]),
    ("holidays", &["holidays", "feiertage"]),
];

fn known(name: &str, target: &Target) -> &'static [&'static str] {
    let reference =
        if target.name == SUBSCRIPTIONS.name { SUBSCRIPTION_REFERENCE } else { INVOICE_REFERENCE };
    let found = KNOWN.into_iter().chain([reference]).find(|(known, _)| *known == name);
    found.map_or(&[], |(_, names)| names)
}

/// Finds candidates by name; our own name comes before all others.
pub(super) fn mapping(names: &[String], target: &'static Target) -> Mapping {
    let plain: Vec<String> = names.iter().map(|name| letters_and_digits(name)).collect();
    let mut mapping = Mapping { target, fields: vec![Vec::new(); target.fields.len()] };
    let is_told = |field: &usize| target.json != Some(*field) && target.status != Some(*field);
    for field in (0..target.fields.len()).filter(is_told) {
        let own = names.iter().position(|name| fold(name) == target.fields[field]);
        let found = known(target.fields[field], target)
            .iter()
            .filter_map(|known| plain.iter().position(|name| name == known));
        for at in own.into_iter().chain(found) {
            if !mapping.fields.iter().any(|used| used.contains(&at)) {
                mapping.fields[field].push(at);
            }
        }
    }
    if let Some(status) = target.status {
        let is_other = |at: usize| fold(&names[at]) != target.fields[status];
        let mut found: Vec<(bool, usize, usize)> = (0..names.len())
            .filter(|at| !mapping.fields.iter().any(|used| used.contains(at)))
            .filter_map(|at| Some((is_other(at), status_rank(&names[at])?, at)))
            .collect();
        found.sort_unstable();
        mapping.fields[status] = found.into_iter().map(|(_, _, at)| at).collect();
    }
    mapping
}

/// The usual meaning of a status.
pub(super) fn meaning(status: &str) -> Option<&'static str> {
    match letters_and_digits(status).as_str() {
        "pending" | "open" | "unpaid" | "notpaid" | "pastdue" | "overdue" | "paymentdue" | "due"
        | "offen" | "f\u{e4}llig" | "unbezahlt" | "impay\u{e9}" | "impay\u{e9}e" | "pendiente"
        | "obetald" | "ubetalt" => Some("PENDING"),
        "paid" | "completed" | "closed" | "settled" | "bezahlt" | "pay\u{e9}" | "pay\u{e9}e" | "pagado"
        | "pagada" | "betald" | "betalt" => Some("PAID"),
        "void" | "voided" | "cancelled" | "canceled" | "draft" | "deleted" | "storniert" | "entwurf"
        | "annul\u{e9}" | "annul\u{e9}e" | "brouillon" | "anulado" | "anulada" | "borrador" | "makulerad"
        | "annulleret" | "kladde" => Some("SKIP"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::target::INVOICES;
    use super::*;

    fn mapped(header: &str) -> Vec<Option<String>> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        let found = mapping(&names, &INVOICES).fields.into_iter();
        found.map(|found| found.first().map(|at| names[*at].clone())).collect()
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
        assert_eq!(
            mapped("Paid At,Num\u{e9}ro de facture,Client,Devise,Montant TTC,Billing State,Statut"),
            names(["Num\u{e9}ro de facture", "Client", "Devise", "Montant TTC", "Statut"])
        );
        assert_eq!(
            mapped("Fakturanr,Kundnr,Valuta,Belopp,Betald"),
            names(["Fakturanr", "Kundnr", "Valuta", "Belopp", "Betald"])
        );
        assert_eq!(
            mapped("Fulfillment Status,N\u{fa}mero de factura,cliente,divisa,importe,status")[4].as_deref(),
            Some("status")
        );
        assert_eq!(mapped("amount,total,reference,id")[0].as_deref(), Some("reference"));
        assert_eq!(mapped("amount,total,reference,id")[3].as_deref(), Some("amount"));
    }
}
