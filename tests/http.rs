//! HTTP by hand, on one connection that is kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection.
pub(crate) struct Http {
    stream: BufReader<Box<dyn Stream>>,
    host: String,
    asked: f64,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When it was asked for, in seconds since 1970.
    pub(crate) asked: f64,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// A machine under load answers late.
const PATIENCE: Duration = Duration::from_secs(60);

impl Http {
    pub(crate) fn tcp(address: SocketAddr) -> Http {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Http {
            stream: BufReader::new(Box::new(stream)),
            host: address.to_string(),
            asked: 0.0,
        }
    }

    pub(crate) fn unix(path: &Path) -> Http {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Http {
            stream: BufReader::new(Box::new(stream)),
            host: "localhost".to_owned(),
            asked: 0.0,
        }
    }

    pub(crate) fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers)
    }

    /// A header `Host` among `headers` takes the place of the usual one.
    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        if headers.iter().all(|(name, _)| *name != "Host") {
            text += &format!("Host: {}\r\n", self.host);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        self.send(&(text + "\r\n"));
        self.read().unwrap()
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.asked = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next answer, or `None` where the connection ends.
    pub(crate) fn read(&mut self) -> Option<Answer> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().unwrap();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut answer = Answer {
            asked: self.asked,
            status,
            headers,
            body: String::new(),
        };
        let length = answer.header("content-length").unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.body.parse().unwrap()
    }
}
