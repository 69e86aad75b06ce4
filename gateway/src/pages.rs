//! Pages beside the resources of a node for development: `DIR/live.html` is `/live.html`.
//!
//! They belong to who runs the node, and have its origin.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{HeaderValue, Method, header};
use mesh::{Code, Fault};

use crate::{
    Service,
    http::{answer, current},
};

/// Bytes that a page may have.
const PAGE_BYTES: u64 = 1024 * 1024;

/// The route of the pages.
pub fn routes() -> Router<Service> {
    Router::new().route("/{page}", any(page))
}

/// Names of the pages in `folder`, in order.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| is_page(name))
            && entry.file_type()?.is_file()
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a file of this name is a page. No such name has a character that HTML or a URL would have to escape.
fn is_page(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.strip_suffix(".html")
        .is_some_and(|stem| !stem.is_empty() && !stem.starts_with('.') && stem.bytes().all(is_plain))
}

/// What a page is read as: `None` where there is no such page.
fn read(folder: &Path, asked: &str) -> io::Result<Option<Vec<u8>>> {
    // Of the names that are there, so that no path is made of what is asked for.
    let Some(name) = names(folder)?.into_iter().find(|name| name == asked) else { return Ok(None) };
    let mut content = Vec::new();
    File::open(folder.join(name))?.take(PAGE_BYTES + 1).read_to_end(&mut content)?;
    Ok(Some(content))
}

async fn page(State(service): State<Service>, request: Request) -> Response {
    let asked = request.uri().path().trim_start_matches('/').to_owned();
    let folder = service.config().pages.clone().filter(|_| [Method::GET, Method::HEAD].contains(request.method()));
    let Some(folder) = folder.filter(|_| is_page(&asked)) else { return answer::unknown_path(request).await };
    match tokio::task::spawn_blocking(move || read(&folder, &asked)).await {
        Ok(Ok(Some(content))) if content.len() as u64 <= PAGE_BYTES => html(content),
        Ok(Ok(Some(_))) => {
            let fault = Fault::new(Code::TooLarge, format!("a page must be at most {PAGE_BYTES} bytes long"));
            answer::fault(&fault, &current())
        }
        Ok(Ok(None)) => answer::unknown_path(request).await,
        Ok(Err(error)) => answer::fault(&Fault::internal("cannot read a page", error), &current()),
        Err(panic) => answer::fault(&Fault::internal("cannot read a page", panic), &current()),
    }
}

fn html(content: Vec<u8>) -> Response {
    let mut response = answer::page(content);
    response.headers_mut().insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_plain_names_of_files_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["live.html", "a-b_c.1.html", ".html", ".hidden.html", "tables.yaml", ".env", "quote\".html"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join("folder.html")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link.html")).unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["a-b_c.1.html", "live.html"]);
        assert_eq!(read(folder.path(), "live.html").unwrap(), Some(b"x".to_vec()));
        for asked in ["tables.yaml", "../live.html", ".env", "folder.html", "link.html", "", "live.html/"] {
            assert_eq!(read(folder.path(), asked).unwrap(), None, "{asked}");
        }
    }
}
