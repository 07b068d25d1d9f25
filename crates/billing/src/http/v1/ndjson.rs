//! Cuts a stream of bytes into lines, each of bounded length and numbered. Pure: knows no JSON and no request.

use bytes::Bytes;

/// The longest line, in bytes without its line end.
pub(super) const LINE_BYTES_MAX: usize = crate::import_row::ROW_BYTES_MAX;

/// One line, or a marker for a line that was too long to keep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// The bytes without the line end; `None` for a line over the limit.
    pub(super) bytes: Option<Bytes>,
}

/// Splits chunks into lines: feed a chunk, consume its lines with `next`, and call `finish` after the last chunk.
#[derive(Default)]
pub(super) struct Lines {
    chunk: Bytes,
    begun: Vec<u8>,
    over: bool,
    number: u64,
}

impl Lines {
    /// Feeds the next chunk; every line of the previous one must have been consumed.
    pub(super) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "lines of the chunk before were not taken");
        self.chunk = chunk;
    }

    /// The next whole line; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Option<Line> {
        let Some(end) = self.chunk.iter().position(|&byte| byte == b'\n') else {
            let rest = std::mem::take(&mut self.chunk);
            self.buffer(&rest);
            return None;
        };
        let piece = self.chunk.split_to(end + 1).slice(..end);
        if self.begun.is_empty() && !self.over {
            return Some(self.number_line(piece));
        }
        self.buffer(&piece);
        Some(self.take_buffered_line())
    }

    /// The last line, if the stream ended without a line end.
    pub(super) fn finish(mut self) -> Option<Line> {
        (self.over || !self.begun.is_empty()).then(|| self.take_buffered_line())
    }

    fn buffer(&mut self, piece: &[u8]) {
        if self.over || self.begun.len() + piece.len() > LINE_BYTES_MAX + 1 {
            self.over = true;
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    fn take_buffered_line(&mut self) -> Line {
        let bytes = Bytes::from(std::mem::take(&mut self.begun));
        if std::mem::take(&mut self.over) {
            self.number += 1;
            return Line { number: self.number, bytes: None };
        }
        self.number_line(bytes)
    }

    fn number_line(&mut self, bytes: Bytes) -> Line {
        self.number += 1;
        let bytes = if bytes.last() == Some(&b'\r') { bytes.slice(..bytes.len() - 1) } else { bytes };
        Line { number: self.number, bytes: (bytes.len() <= LINE_BYTES_MAX).then_some(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of these chunks; a line over the limit is shown as "<long>".
    fn lines(chunks: &[&[u8]]) -> Vec<(u64, String)> {
        let mut cutter = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            cutter.feed(Bytes::copy_from_slice(chunk));
            while let Some(line) = cutter.next() {
                found.push(line);
            }
        }
        found.extend(cutter.finish());
        let text = |line: Line| match line.bytes {
            Some(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            None => "<long>".to_owned(),
        };
        found.into_iter().map(|line| (line.number, text(line))).collect()
    }

    fn numbered(texts: &[&str]) -> Vec<(u64, String)> {
        (1..).zip(texts.iter().map(|text| (*text).to_owned())).collect()
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let text = b"one\r\ntwo\n\n{\"a\":1}\nlast";
        let expected = numbered(&["one", "two", "", "{\"a\":1}", "last"]);
        for size in 1..=text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(lines(&chunks), expected, "chunks of {size}");
        }
        assert_eq!(lines(&[]), []);
        assert_eq!(lines(&[b"one\n"]), numbered(&["one"]));
    }

    #[test]
    fn a_line_over_the_limit_is_reported_and_not_kept() {
        let fits = vec![b'a'; LINE_BYTES_MAX];
        let over = vec![b'a'; LINE_BYTES_MAX + 1];
        let twice = vec![b'a'; 2 * LINE_BYTES_MAX];
        for size in [7, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, LINE_BYTES_MAX * 3] {
            let text = [&fits[..], b"\r\n", &over, b"\n", &twice, b"\nb\n", &over].concat();
            let found = lines(&text.chunks(size).collect::<Vec<_>>());
            let kept: Vec<(u64, usize)> = found.iter().map(|(number, text)| (*number, text.len())).collect();
            let long = "<long>".len();
            assert_eq!(
                kept,
                [(1, LINE_BYTES_MAX), (2, long), (3, long), (4, 1), (5, long)],
                "chunks of {size}"
            );
        }
    }
}
