//! A very small HTTP server for the guests' images: files of one directory, GET and HEAD, byte ranges from
//! an offset (so that an interrupted download can go on). A process of its own, started by `up`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use crate::error::{AtPath, Result};

/// A peer that is silent for this long is let go.
const PATIENCE: Duration = Duration::from_secs(30);
/// No request of an honest client has a longer head, in bytes.
const LONGEST_HEAD: u64 = 16 * 1024;

/// Serves the directory's files until the process ends.
pub fn serve(directory: &Path, listen: &str) -> Result<()> {
    let listener = TcpListener::bind(listen).at(listen)?;
    serve_on(listener, directory)
}

fn serve_on(listener: TcpListener, directory: &Path) -> Result<()> {
    for stream in listener.incoming() {
        let (Ok(stream), directory) = (stream, directory.to_owned()) else {
            continue;
        };
        // A client that goes away in the middle is its own affair.
        thread::spawn(move || drop(answer(stream, &directory)));
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    head_only: bool,
    name: String,
    from: u64,
}

fn answer(mut stream: TcpStream, directory: &Path) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = Vec::new();
    for line in BufReader::new(stream.try_clone()?.take(LONGEST_HEAD)).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let Some(request) = parse(&lines) else {
        return stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let Ok(mut file) = File::open(directory.join(&request.name)) else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let size = file.metadata()?.len();
    if request.from > size {
        return stream.write_all(
            b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let status = match request.from {
        0 => "200 OK".to_owned(),
        from => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}",
            size.saturating_sub(1)
        ),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n",
        size - request.from
    )?;
    if !request.head_only {
        file.seek(SeekFrom::Start(request.from))?;
        std::io::copy(&mut file, &mut stream)?;
    }
    stream.flush()
}

// None for whatever is not a plain request of a plain file name: no directories, nothing outside.
fn parse(lines: &[String]) -> Option<Request> {
    let mut words = lines.first()?.split(' ');
    let head_only = match words.next()? {
        "GET" => false,
        "HEAD" => true,
        _ => return None,
    };
    let name = words.next()?.strip_prefix('/')?;
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '%', '?']) {
        return None;
    }
    let from = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case("range"))
        .and_then(|(_, value)| value.trim().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    Some(Request { head_only, name: name.to_owned(), from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Option<Request> {
        parse(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_range_from_an_offset_is_understood() {
        let found =
            request("GET /vmlinuz HTTP/1.1\nHost: x\nRange: bytes=100-").expect("a plain request");
        assert_eq!(found, Request { head_only: false, name: "vmlinuz".into(), from: 100 });
    }

    #[test]
    fn nothing_outside_of_the_directory_is_served() {
        for path in ["/../etc/passwd", "/.hidden", "/a/b", "/%2e%2e/x", "/", "x"] {
            assert_eq!(request(&format!("GET {path} HTTP/1.1")), None, "{path}");
        }
        assert_eq!(request("POST /vmlinuz HTTP/1.1"), None);
    }

    #[test]
    fn a_file_is_served_whole_and_from_an_offset() {
        let directory =
            std::env::temp_dir().join(format!("discovery-lab-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        std::fs::write(directory.join("image"), b"0123456789").expect("a temporary file");
        let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let address = listener.local_addr().expect("it is bound");
        let served = directory.clone();
        thread::spawn(move || drop(serve_on(listener, &served)));
        let get = |head: &str| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.write_all(format!("{head}\r\n\r\n").as_bytes()).expect("it reads");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("it answers");
            text
        };
        assert!(get("GET /image HTTP/1.1").ends_with("\r\n\r\n0123456789"));
        let part = get("GET /image HTTP/1.1\r\nRange: bytes=7-");
        assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n789"), "{part}");
        assert!(get("GET /none HTTP/1.1").starts_with("HTTP/1.1 404"));
        std::fs::remove_dir_all(directory).expect("the test made it");
    }
}
