//! A finished run in the text format of Prometheus, for a Pushgateway or a textfile collector. Formats values; decides
//! nothing.

use std::fmt::Write;

use crate::evaluate::Verdict;
use crate::objects::finding::Severity;
use crate::report::Report;

/// The severity of a check without a verdict.
const CANNOT_TELL: &str = "cannot_tell";

impl Report {
    /// The metrics. The environment's name is a label of each series, as it is in a Pushgateway's grouping key.
    pub(crate) fn metrics(&self) -> String {
        let red = |severity: Severity| {
            self.rows
                .iter()
                .filter(|row| row.verdict == Verdict::Red && row.severity == Some(severity))
                .count()
        };
        let unknown = self.rows.iter().filter(|row| row.verdict == Verdict::CannotTell).count();
        let severities = [Severity::Medium, Severity::High, Severity::Critical];
        let mut findings: Vec<(&str, usize)> =
            severities.iter().map(|severity| (severity.as_str(), red(*severity))).collect();
        findings.push((CANNOT_TELL, unknown));
        let environment = escaped(&self.environment);
        let mut text = String::from(
            "# HELP doctor_findings Findings of the last run by severity; cannot_tell are checks without a verdict.\n\
             # TYPE doctor_findings gauge\n",
        );
        for (severity, count) in findings {
            let _ = writeln!(
                text,
                "doctor_findings{{environment=\"{environment}\",severity=\"{severity}\"}} {count}"
            );
        }
        let _ = write!(
            text,
            "# HELP doctor_checks Checks and rules of the last run.\n\
             # TYPE doctor_checks gauge\n\
             doctor_checks{{environment=\"{environment}\"}} {}\n\
             # HELP doctor_run_duration_seconds Duration of the last run.\n\
             # TYPE doctor_run_duration_seconds gauge\n\
             doctor_run_duration_seconds{{environment=\"{environment}\"}} {:.3}\n",
            self.rows.len(),
            self.elapsed.as_secs_f64(),
        );
        text
    }
}

/// A label value, escaped for the text format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::escaped;
    use crate::report::tests::{report, report_of_objects};

    #[test]
    fn findings_are_counted_by_severity_and_what_has_no_verdict_apart() {
        let text = report(Duration::from_millis(1250)).metrics();
        for line in [
            "doctor_findings{environment=\"production\",severity=\"medium\"} 0",
            "doctor_findings{environment=\"production\",severity=\"high\"} 1",
            "doctor_findings{environment=\"production\",severity=\"critical\"} 0",
            "doctor_findings{environment=\"production\",severity=\"cannot_tell\"} 1",
            "doctor_checks{environment=\"production\"} 3",
            "doctor_run_duration_seconds{environment=\"production\"} 1.250",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        let of_objects = report_of_objects();
        let red = of_objects.metrics().lines().filter(|line| line.ends_with("} 1")).count();
        assert!(red > 0, "{}", of_objects.metrics());
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
