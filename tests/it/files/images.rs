//! Images that are made of files: what is asked for, what is refused, and what a file may not do to the node.

use std::io::Cursor;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use image::{DynamicImage, ImageFormat, ImageReader, Rgba, RgbaImage};
use serde_json::json;
use tests::mesh::{Setup, Shape};

use super::{Answer, Kind, OPEN, Stage, until};

scenarios!(
    images_are_resized_and_converted,
    an_image_is_as_new_as_its_file,
    images_are_read_under_rules,
    what_cannot_be_made_is_told,
    hostile_images_are_refused,
    images_wait_for_each_other,
    projects_do_not_wait_for_each_other,
);

/// A bucket that makes images of all kinds.
fn open() -> String {
    format!("images: [jpeg, png, webp]\n  {OPEN}")
}

/// An image with a red left half and a half transparent, blue right one.
fn drawn(width: u32, height: u32) -> DynamicImage {
    let pixel = |x, _| if x < width / 2 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 255, 127]) };
    DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, pixel))
}

fn written(image: &DynamicImage, format: ImageFormat) -> anyhow::Result<Bytes> {
    let mut bytes = Cursor::new(Vec::new());
    match format {
        ImageFormat::Jpeg => DynamicImage::ImageRgb8(image.to_rgb8()).write_to(&mut bytes, format)?,
        _ => image.write_to(&mut bytes, format)?,
    }
    Ok(bytes.into_inner().into())
}

/// Format and size of an image, and the image.
fn read(answer: &Answer) -> anyhow::Result<(ImageFormat, (u32, u32), DynamicImage)> {
    ensure!(answer.status == 200, "{answer:?}");
    let reader = ImageReader::new(Cursor::new(&answer.body)).with_guessed_format()?;
    let format = reader.format().context("a format")?;
    assert_eq!(answer.header("content-type"), format.to_mime_type());
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let image = reader.decode()?;
    Ok((format, (image.width(), image.height()), image))
}

impl Stage {
    async fn draw(&self, path: &str, image: &DynamicImage, format: ImageFormat) -> anyhow::Result<Answer> {
        self.keep(path, written(image, format)?).await
    }

    async fn keep(&self, path: &str, content: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let answer = self.send(Method::PUT, path, &[], content).await?;
        ensure!(matches!(answer.status, 200 | 201), "{answer:?}");
        Ok(answer)
    }
}

async fn images_are_resized_and_converted(shape: Shape) -> anyhow::Result<()> {
    use ImageFormat::{Jpeg, Png, WebP};
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, &open()).await?;
        for (name, format) in [("/a.png", Png), ("/a.jpg", Jpeg), ("/a.webp", WebP)] {
            let kept = stage.draw(name, &drawn(400, 200), format).await?;
            for (query, expected, size) in [
                ("w=100", format, (100, 50)),
                ("h=100", format, (200, 100)),
                ("w=100&h=20&fit=contain", format, (40, 20)),
                ("w=50&h=50&fit=cover&format=webp", WebP, (50, 50)),
                ("w=50&h=80&fit=fill&format=png&q=3", Png, (50, 80)),
                ("w=4000&format=jpeg&q=50", Jpeg, (400, 200)),
                ("format=png", Png, (400, 200)),
                ("q=1", format, (400, 200)),
            ] {
                let path = format!("{name}?{query}");
                let made = stage.get(&path).await?;
                let (found, found_size, image) = read(&made).with_context(|| path.clone())?;
                assert_eq!((found, found_size), (expected, size), "{kind:?} {path}");
                let left = image.to_rgba8().get_pixel(size.0 / 8, size.1 / 2).0;
                ensure!(left[0] > 240 && left[2] < 20 && left[3] > 240, "{path}: {left:?}");
                assert_ne!(made.header("etag"), kept.header("etag"), "{path}");
                for (name, value) in [("x-content-type-options", "nosniff"), ("accept-ranges", "bytes")] {
                    assert_eq!(made.header(name), value, "{path}");
                }
                let head = stage.send(Method::HEAD, &path, &[], "").await?;
                assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
                for name in ["etag", "content-length", "content-type", "last-modified"] {
                    assert_eq!(head.header(name), made.header(name), "{path} {name}");
                }
            }
        }
        // What is half transparent is so in what knows it, and on white elsewhere.
        let right = async |query: &str| {
            let (_, (width, height), image) = read(&stage.get(&format!("/a.png?{query}")).await?)?;
            anyhow::Ok(image.to_rgba8().get_pixel(width * 7 / 8, height / 2).0)
        };
        let [.., alpha] = right("w=80&format=webp").await?;
        ensure!((120..135).contains(&alpha), "{alpha}");
        let [red, _, blue, alpha] = right("w=80&format=jpeg").await?;
        ensure!((115..140).contains(&red) && blue > 245 && alpha == 255, "{red} {blue} {alpha}");
        // A part of it, and a saved one.
        let whole = stage.get("/a.png?w=100").await?;
        let part = stage.send(Method::GET, "/a.png?w=100", &[("range", "bytes=2-5")], "").await?;
        let range = format!("bytes 2-5/{}", whole.body.len());
        assert_eq!((part.status, part.header("content-range"), &part.body), (206, &*range, &whole.body.slice(2..6)));
        let saved = stage.get("/a.png?w=100&download=b.png").await?;
        assert_eq!(saved.header("content-disposition"), "attachment; filename=\"b.png\"");
    }
    Ok(())
}

async fn an_image_is_as_new_as_its_file(shape: Shape) -> anyhow::Result<()> {
    for kind in [Kind::Local, Kind::Memory, Kind::S3] {
        let stage = Stage::with(shape, kind, &open()).await?;
        for side in [40, 20, 40, 30] {
            stage.draw("/a", &drawn(side, side), ImageFormat::Png).await?;
            for _ in 0..2 {
                let made = stage.get("/a?w=35").await?;
                let (_, size, _) = read(&made)?;
                assert_eq!(size, (side.min(35), side.min(35)), "{kind:?}");
                let etag = made.header("etag");
                let again = stage.send(Method::GET, "/a?w=35", &[("if-none-match", etag)], "").await?;
                assert_eq!((again.status, again.header("etag"), again.body.len()), (304, etag, 0), "{kind:?}");
                let head = stage.send(Method::HEAD, "/a?w=35", &[("if-none-match", etag)], "").await?;
                assert_eq!(head.status, 304, "{kind:?}");
                let other = stage.send(Method::GET, "/a?w=34", &[("if-none-match", etag)], "").await?;
                assert_eq!(other.status, 200, "another image: {kind:?}");
                for (name, value, status) in [
                    ("if-match", etag, 200),
                    ("if-match", "\"other\"", 412),
                    ("if-none-match", "*", 304),
                    ("if-none-match", "x", 400),
                ] {
                    let found = stage.send(Method::GET, "/a?w=35", &[(name, value)], "").await?;
                    assert_eq!(found.status, status, "{kind:?} {name} {value}");
                }
            }
        }
        assert_eq!(stage.delete("/a").await?.status, 200);
        assert_eq!(stage.get("/a?w=35").await?.status, 404, "{kind:?}");
    }
    let metrics = Stage::with(shape, Kind::Memory, &open()).await?;
    metrics.draw("/a", &drawn(40, 40), ImageFormat::Png).await?;
    for _ in 0..3 {
        read(&metrics.get("/a?w=10").await?)?;
    }
    let told = metrics.mesh.metrics().await?;
    for line in [r#"perigee_images_total{outcome="made"} 1"#, r#"perigee_images_total{outcome="kept"} 2"#] {
        ensure!(told.lines().any(|have| have == line), "{line} is not in {told}");
    }
    Ok(())
}

async fn images_are_read_under_rules(shape: Shape) -> anyhow::Result<()> {
    let rules = "rules: [{ prefix: /, create: { rule: allow } }, { prefix: /mine, create: { rule: allow }, read: { rule: authenticated } }]";
    let stage = Stage::with(shape, Kind::Local, &format!("images: [png]\n  {rules}")).await?;
    for path in ["/a.png", "/mine/a.png"] {
        stage.draw(path, &drawn(40, 40), ImageFormat::Png).await?;
    }
    assert_eq!(stage.get("/a.png?w=10").await?.code()?, "DENIED");
    assert_eq!(stage.get("/mine/a.png?w=10").await?.code()?, "UNAUTHENTICATED");
    let user = stage.mesh.customer(1);
    let made = super::send(&user, Method::GET, "/mine/a.png?w=10", &[], "").await?;
    assert_eq!(read(&made)?.1, (10, 10));
    // Whoever may read the file by a signed address may have any image of it.
    let body = json!({ "method": "GET", "expires": 60 }).to_string();
    let headers = [("content-type", "application/json")];
    let signed = super::send(&user, Method::POST, "/mine/a.png?op=sign", &headers, body).await?.json()?;
    let url = signed["url"].as_str().context("a url")?;
    assert_eq!(read(&stage.get(&format!("{url}&w=20")).await?)?.1, (20, 20));
    assert_eq!(stage.get(&format!("{}&w=20", url.replace("mine/a", "mine/b"))).await?.status, 403);
    Ok(())
}

async fn what_cannot_be_made_is_told(shape: Shape) -> anyhow::Result<()> {
    let other = "---\nkind: bucket\nmeta: { project: shop, id: plain }\nspec: { backend: { kind: memory }, rules: [{ prefix: /, create: { rule: allow }, read: { rule: allow } }] }\n";
    let setup = Setup {
        node_images: "side: 100, pixels: 10000, source_bytes: 100000",
        resources: other.to_owned(),
        ..Setup::default()
    };
    let stage = Stage::set_up(shape, Kind::Local, &open().replace("jpeg, ", ""), setup).await?;
    stage.draw("/a.png", &drawn(60, 30), ImageFormat::Png).await?;
    stage.draw("/plain/a.png", &drawn(60, 30), ImageFormat::Png).await?;
    stage.draw("/a.jpg", &drawn(60, 30), ImageFormat::Jpeg).await?;
    stage.draw("/wide.png", &drawn(101, 100), ImageFormat::Png).await?;
    stage.draw("/long.png", &drawn(500, 20), ImageFormat::Png).await?;
    stage.draw("/thin.png", &drawn(10_000, 1), ImageFormat::Png).await?;
    stage.draw("/a.webp", &drawn(60, 30), ImageFormat::WebP).await?;
    stage.keep("/a.txt", "text").await?;
    stage.keep("/large.png", [&written(&drawn(9, 9), ImageFormat::Png)?[..], &[0; 100_000]].concat()).await?;
    assert_eq!(read(&stage.get("/a.png?w=100").await?)?.1, (60, 30));
    assert_eq!(read(&stage.get("/long.png?format=webp").await?)?.1, (100, 4));
    assert_eq!(read(&stage.get("/plain/a.png").await?)?.1, (60, 30), "the file itself");
    for (path, status, code, text) in [
        ("/a.png?w=101", 400, "BAD_REQUEST", "invalid w: expected 1 to 100 pixels, found 101"),
        ("/a.png?h=4294967295", 400, "BAD_REQUEST", "invalid h"),
        ("/a.png?w=0", 400, "BAD_REQUEST", "invalid w"),
        ("/a.png?w=1e9", 400, "BAD_REQUEST", "invalid w"),
        ("/a.png?q=101", 400, "BAD_REQUEST", "invalid q"),
        ("/a.png?fit=cover&w=1", 400, "BAD_REQUEST", "invalid fit"),
        ("/a.png?format=avif", 400, "BAD_REQUEST", "expected one of jpeg, png, webp"),
        ("/plain/a.png?w=1", 400, "BAD_REQUEST", "bucket plain makes no images"),
        ("/a.jpg?w=1", 415, "UNSUPPORTED_TYPE", "expected png, webp"),
        ("/a.txt?w=1", 415, "UNSUPPORTED_TYPE", "expected png, webp"),
        ("/wide.png?w=1", 413, "TOO_LARGE", "over the limit of 10000 pixels: it has 10100"),
        ("/thin.png?w=1", 413, "TOO_LARGE", "over the limit of 200000 bytes of memory to resize it"),
        ("/a.webp?w=1", 413, "TOO_LARGE", "bytes of lossless WebP data"),
        ("/large.png?w=1", 413, "TOO_LARGE", "over the limit of 100000 bytes"),
        ("/none.png?w=1", 404, "NOT_FOUND", "not found"),
    ] {
        let refused = stage.get(path).await?;
        let told = refused.json()?["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!((refused.status, refused.code()?.as_str()), (status, code), "{path}: {told}");
        ensure!(told.contains(text), "{path}: {told}");
        assert_eq!(stage.send(Method::HEAD, path, &[], "").await?.status, status, "{path}");
    }
    Ok(())
}

/// CRC of a chunk of PNG. Source: PNG (third edition), annex D.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 })
    })
}

/// A PNG that claims to have other sides than its data has.
fn lying_png(width: u32, height: u32) -> anyhow::Result<Vec<u8>> {
    let mut content = written(&drawn(20, 20), ImageFormat::Png)?.to_vec();
    content[16..20].copy_from_slice(&width.to_be_bytes());
    content[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&content[12..29]);
    content[29..33].copy_from_slice(&sum.to_be_bytes());
    Ok(content)
}

/// Where the frame of a JPEG tells its height and width.
fn frame_of(jpeg: &[u8]) -> anyhow::Result<usize> {
    let at = jpeg.windows(3).position(|bytes| bytes[0] == 0xff && matches!(bytes[1], 0xc0..=0xc2) && bytes[2] == 0);
    Ok(at.context("a frame")? + 5)
}

/// A WebP of 10 by 10 pixels with a picture that claims to have 16383 by 16383.
fn lying_webp() -> Vec<u8> {
    let picture = [&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f][..], &[0; 54]].concat();
    let canvas = [0, 0, 0, 0, 9, 0, 0, 9, 0, 0];
    let mut chunks = b"WEBPVP8X\x0a\0\0\0".to_vec();
    chunks.extend(canvas);
    chunks.extend(b"VP8 \x40\0\0\0");
    chunks.extend(picture);
    [&b"RIFF"[..], &u32::try_from(chunks.len()).unwrap_or_default().to_le_bytes(), &chunks].concat()
}

/// Bits of lossless WebP: the lowest of each value come first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn put(&mut self, values: &[(u64, usize)]) {
        for (value, bits) in values {
            for bit in 0..*bits {
                if self.count.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                self.bytes[self.count / 8] |= u8::from(value >> bit & 1 == 1) << (self.count % 8);
                self.count += 1;
            }
        }
    }
}

/// A picture of one pixel with so many groups of prefix codes, the first of each with 2048 symbols of 11 bits. Source: RFC
/// 9649, section 3. With `header` it has its size, as transparency does not.
fn codes(groups: u64, header: bool) -> Vec<u8> {
    let mut bits = Bits::default();
    if header {
        bits.put(&[(0x2f, 8), (0, 14), (0, 14), (0, 1), (0, 3)]);
    }
    // No transforms; a cache of 2048 colours; an entropy image of one pixel without a cache: red and green tell the
    // last group.
    bits.put(&[(0, 1), (1, 1), (11, 4), (1, 1), (0, 3), (0, 1)]);
    let of = |symbol| [(1, 1), (0, 1), (1, 1), (symbol, 8)];
    let last = groups - 1;
    for symbol in [last & 0xff, last >> 8, 0, 0, 0] {
        bits.put(&of(symbol));
    }
    for _ in 0..groups {
        // 15 lengths of the code of lengths, of which the last, that of 11, is the only one; 2048 symbols.
        bits.put(&[(0, 1), (11, 4), (0, 42), (1, 3), (1, 1), (5, 3), (2046, 12)]);
        for _ in 0..4 {
            bits.put(&[(1, 1), (0, 1), (0, 1), (0, 1)]);
        }
    }
    // The pixel.
    bits.put(&[(0, 11)]);
    [bits.bytes, vec![0; 8]].concat()
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).unwrap_or_default().to_le_bytes();
    [&name[..], &size, data, &vec![0; data.len() % 2]].concat()
}

/// A WebP of these chunks; with flags, of one pixel in the extended form.
fn webp(flags: Option<u8>, chunks: &[u8]) -> Vec<u8> {
    let extended = flags.map(|flags| chunk(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap_or_default();
    chunk(b"RIFF", &[b"WEBP", &extended[..], chunks].concat())
}

/// WebP files that take gigabytes to decode unless they are refused before, by where their lossless part is.
fn webp_bombs() -> [(&'static str, Vec<u8>); 4] {
    let lossless = chunk(b"VP8L", &codes(1 << 16, true));
    let alpha = chunk(b"ALPH", &[&[1][..], &codes(1 << 16, false)].concat());
    let picture = [&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 1, 0, 1, 0][..], &[0; 54]].concat();
    let lossy = [alpha, chunk(b"VP8 ", &picture)].concat();
    let frame = chunk(b"ANMF", &[&[0; 16][..], &lossless].concat());
    let animation = [chunk(b"ANIM", &[0; 6]), frame].concat();
    [
        ("codes.webp", webp(None, &lossless)),
        ("extended.webp", webp(Some(0x10), &lossless)),
        ("transparent.webp", webp(Some(0x10), &lossy)),
        ("animated.webp", webp(Some(0x12), &animation)),
    ]
}

async fn hostile_images_are_refused(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Kind::Local, &open()).await?;
    let jpeg = written(&drawn(64, 64), ImageFormat::Jpeg)?;
    let frame = frame_of(&jpeg)?;
    let mut huge = jpeg.to_vec();
    huge[frame..frame + 4].copy_from_slice(&[0xff; 4]);
    let scan = jpeg.windows(2).position(|bytes| bytes == [0xff, 0xda]).context("a scan")?;
    let scans = [&jpeg[..scan], &jpeg[scan..jpeg.len() - 2].repeat(200), &[0xff, 0xd9]].concat();
    let bomb = written(&DynamicImage::new_luma8(9000, 9000), ImageFormat::Png)?;
    ensure!(bomb.len() < 1_000_000, "it is small: {}", bomb.len());
    let grey = |width, height| written(&DynamicImage::new_luma8(width, height), ImageFormat::Png);
    for (name, content, text) in [
        ("row.png", grey(25_000_000, 1)?.to_vec(), "over the limit of 65535 pixels of a side: it has 25000000"),
        ("column.png", grey(1, 25_000_000)?.to_vec(), "over the limit of 65535 pixels of a side: it has 25000000"),
    ]
    .into_iter()
    .chain(webp_bombs().map(|(name, content)| (name, content, "bytes of lossless WebP data")))
    {
        stage.keep(&format!("/{name}"), content).await?;
        let refused = stage.get(&format!("/{name}?w=10")).await?;
        let told = refused.json()?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(refused.status == 413 && told.contains(text), "{name}: {refused:?}");
    }
    let deep = written(&DynamicImage::new_rgba16(4000, 4000), ImageFormat::Png)?;
    for (name, content, status) in [
        ("bomb.png", bomb.to_vec(), 413),
        ("deep.png", deep.to_vec(), 413),
        ("huge.png", lying_png(u32::MAX >> 1, u32::MAX >> 1)?, 413),
        ("wide.png", lying_png(60_000, 60_000)?, 413),
        ("lying.png", lying_png(5000, 5000)?, 415),
        ("empty.png", lying_png(0, 0)?, 415),
        ("huge.jpg", huge, 413),
        ("scans.jpg", scans, 415),
        ("lying.webp", lying_webp(), 415),
        ("cut.png", written(&drawn(64, 64), ImageFormat::Png)?[..60].to_vec(), 415),
        ("cut.webp", written(&drawn(64, 64), ImageFormat::WebP)?[..40].to_vec(), 415),
        ("head.jpg", jpeg[..4].to_vec(), 415),
    ] {
        stage.keep(&format!("/{name}"), content).await?;
        let begin = std::time::Instant::now();
        let refused = stage.get(&format!("/{name}?w=10")).await?;
        assert_eq!(refused.status, status, "{name}: {refused:?}");
        ensure!(begin.elapsed().as_secs() < 5, "{name} took {:?}", begin.elapsed());
    }
    // Whatever is changed in an image, it is made or refused.
    let mut seed = 7_u64;
    let mut next = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap_or_default() % below
    };
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let sound = written(&drawn(64, 48), format)?;
        for round in 0..60 {
            let mut content = sound.to_vec();
            for _ in 0..=next(4) {
                let at = next(content.len());
                content[at] = u8::try_from(next(256))?;
            }
            if round % 5 == 0 {
                content.truncate(next(content.len()) + 1);
            }
            stage.keep("/changed", content).await?;
            let answer = stage.get("/changed?w=20").await?;
            ensure!(matches!(answer.status, 200 | 413 | 415), "{format:?} {round}: {answer:?}");
        }
    }
    stage.keep("/few", webp(None, &chunk(b"VP8L", &codes(16, true)))).await?;
    assert_eq!(read(&stage.get("/few?w=10").await?)?.1, (1, 1), "few codes are no harm");
    stage.keep("/sound", jpeg).await?;
    assert_eq!(read(&stage.get("/sound?w=10").await?)?.1, (10, 10), "and all others are made");
    Ok(())
}

async fn images_wait_for_each_other(shape: Shape) -> anyhow::Result<()> {
    let setup = Setup { node_images: "workers: 1, queue: 5, cache_bytes: 1000000", ..Setup::default() };
    let stage = Stage::set_up(shape, Kind::Memory, &open(), setup).await?;
    stage.draw("/a.png", &drawn(2000, 1500), ImageFormat::Png).await?;
    let asked = (0..40).map(|index| {
        let path = format!("/a.png?w={}&format=webp", 200 + index);
        let stage = &stage;
        async move { stage.get(&path).await }
    });
    let answers = futures::future::try_join_all(asked).await?;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    ensure!(!refused.is_empty() && refused.len() < answers.len(), "{} of {}", refused.len(), answers.len());
    for answer in &refused {
        assert_eq!((answer.status, answer.code()?.as_str()), (429, "TOO_MANY"));
        ensure!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    // Who leaves leaves the place to others.
    for width in 300..320 {
        let path = format!("/a.png?w={width}&format=webp");
        let left = tokio::time::timeout(std::time::Duration::from_millis(20), stage.get(&path)).await;
        ensure!(
            left.is_err() || left.is_ok_and(|answer| answer.is_ok_and(|answer| matches!(answer.status, 200 | 429)))
        );
    }
    until(async || Ok(stage.get("/a.png?w=400").await?.status == 200)).await?;
    let same = (0..3).map(|_| stage.get("/a.png?w=500"));
    for answer in futures::future::try_join_all(same).await? {
        assert_eq!(read(&answer)?.1.0, 500);
    }
    Ok(())
}

async fn projects_do_not_wait_for_each_other(shape: Shape) -> anyhow::Result<()> {
    let other = format!(
        "---\nkind: project\nmeta: {{ id: other }}\n---\nkind: bucket\nmeta: {{ project: other, id: files }}\nspec:\n  default: true\n  backend: {{ kind: memory }}\n  {}\n",
        open()
    );
    let setup = Setup {
        node_images: "workers: 1, queue: 7, wait: 60s, time: 60s, cache_bytes: 1000000",
        resources: other,
        ..Setup::default()
    };
    let stage = Stage::set_up(shape, Kind::Memory, &open(), setup).await?;
    let image = written(&drawn(2000, 1500), ImageFormat::Png)?;
    for path in ["/a.png", "/v1/api/other/files/a.png"] {
        stage.keep(path, image.clone()).await?;
    }
    let stage = &stage;
    let asked = (0..40).map(async |index| stage.get(&format!("/a.png?w={}", 200 + index)).await);
    let of_other = async {
        let mut answers = Vec::new();
        for width in 0..3 {
            answers.push(stage.get(&format!("/v1/api/other/files/a.png?w={}", 10 + width)).await?);
        }
        anyhow::Ok(answers)
    };
    let (asked, of_other) = futures::try_join!(futures::future::try_join_all(asked), of_other)?;
    for answer in &of_other {
        ensure!(read(answer)?.1.0 < 20, "another project has places of its own");
    }
    let made = asked.iter().filter(|answer| answer.status == 200).count();
    ensure!((4..40).contains(&made), "{made}");
    Ok(())
}
