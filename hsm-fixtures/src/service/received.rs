//! A request as it arrived, before anything is believed of it.

/// Method, raw path and query, headers with lower-case names in order of arrival, body.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The one value of a header; the error says that it is absent or repeated.
    pub(crate) fn header(&self, name: &str) -> Result<&str, String> {
        self.optional_header(name)?
            .ok_or_else(|| format!("no {name} header"))
    }

    /// The one value of a header that may be absent.
    pub(crate) fn optional_header(&self, name: &str) -> Result<Option<&str>, String> {
        let mut values = self
            .headers
            .iter()
            .filter(|(header, _)| header == name)
            .map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(format!("more than one {name} header")),
        }
    }
}
