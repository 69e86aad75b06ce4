"""Requests of the S3 protocol that must be refused, signed by botocore and changed afterwards:
s3_refusals.py ADDRESS KEY SECRET USER_KEY USER_SECRET OTHER_KEY OTHER_SECRET"""

import base64
import datetime
import email.utils
import hashlib
import hmac
import http.client
import re
import sys
import zlib

import botocore.auth
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

address, key, secret, user_key, user_secret, other_key, other_secret = sys.argv[1:]
KEYS = {key: secret, user_key: user_secret, other_key: other_secret}
REGION = "eu-anywhere-1"
now = botocore.auth.get_current_datetime


def signed(method, path, body=b"", headers=None, by=key, secret_of=None, at=None, query=None):
    """A request as botocore signs it: method, path, headers, body."""
    botocore.auth.get_current_datetime = (lambda *arguments, **named: now(*arguments, **named) + at) if at else now
    request = AWSRequest(method=method, url=f"http://{address}{path}", data=body, headers=headers or {})
    credentials = Credentials(by, secret_of or KEYS[by])
    if query is None:
        S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    else:
        S3SigV4QueryAuth(credentials, "s3", REGION, expires=query).add_auth(request)
    botocore.auth.get_current_datetime = now
    return [method, request.url.split(address, 1)[1], dict(request.headers.items()), body]


def sent(method, path, headers, body=b""):
    """Status and code of the answer."""
    connection = http.client.HTTPConnection(address)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        if name.lower() not in ("host", "content-length"):
            connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    found = re.search("<Code>(.*?)</Code>", text)
    connection.close()
    return answer.status, found.group(1) if found else text


def expect(status, code, request):
    found = sent(*request)
    assert found == (status, code), (found, status, code, request[:3])


PATH = "/s3/depot/files/own/ann/a"
assert sent(*signed("PUT", PATH, b"kept")) == (200, ""), sent(*signed("PUT", PATH, b"kept"))
assert sent(*signed("GET", PATH)) == (200, "kept")

# Who has no valid signature.
for path in [PATH, "/s3/nothere/files/a"]:
    expect(403, "AccessDenied", ["GET", path, {}])
    expect(403, "RequestTimeTooSkewed", signed("GET", path, at=datetime.timedelta(minutes=-16)))
expect(403, "SignatureDoesNotMatch", signed("GET", PATH, secret_of="wrong secret" * 4))
expect(403, "InvalidAccessKeyId", signed("GET", PATH, by="unknown", secret_of="x" * 40))
expect(403, "InvalidAccessKeyId", signed("GET", PATH, by=other_key))
expect(403, "InvalidAccessKeyId", signed("GET", "/s3/nothere/files/a"))
expect(403, "RequestTimeTooSkewed", signed("GET", PATH, at=datetime.timedelta(minutes=16)))
expect(400, "InvalidRequest", ["GET", PATH, {"Authorization": "Bearer x"}])
expect(403, "AccessDenied", signed("GET", PATH, by=user_key))

# A signature is for one request.
for change in range(5):
    request = signed("GET", PATH)
    if change == 0:
        request[1] = "/s3/depot/files/own/ann/b"
    elif change == 1:
        request[1] = "/s3/depot/second/own/ann/a"
    elif change == 2:
        request[1] = "/s3/other/files/own/ann/a"
    elif change == 3:
        request[1] = PATH + "?uploads"
    else:
        request[0] = "DELETE"
    expect(403, "InvalidAccessKeyId" if change == 2 else "SignatureDoesNotMatch", request)
request = signed("PUT", PATH, b"")
request[2]["x-amz-copy-source"] = "files/own/ann/other"
expect(403, "AccessDenied", request)
request = signed("GET", PATH)
request[2]["x-amz-meta-a"] = "\xff"
request[2]["Authorization"] = request[2]["Authorization"].replace("x-amz-date", "x-amz-date;x-amz-meta-a")
expect(403, "AccessDenied", request)
request = signed("PUT", PATH, b"true")
request[3] = b"fake"
expect(400, "XAmzContentSHA256Mismatch", request)
request = signed("PUT", PATH, b"hello", {"x-amz-checksum-crc32": "AAAAAA=="})
expect(400, "BadDigest", request)
request = signed("PUT", PATH, b"hello", {"content-md5": base64.b64encode(b"0" * 16).decode()})
expect(400, "BadDigest", request)
delete = b"<Delete><Object><Key>own/ann/a</Key></Object></Delete>"
request = signed("POST", "/s3/depot/files?delete", delete)
request[3] = delete.replace(b"/a<", b"/b<")
expect(400, "XAmzContentSHA256Mismatch", request)
for path in ["/s3/depot/files", "/s3/depot/files/?versioning", "/s3/depot/files/own/ann/a?tagging", "/s3/depot/new/"]:
    request = signed("PUT", path, b"<a>true</a>")
    request[3] = b"<a>fake</a>"
    expect(400, "XAmzContentSHA256Mismatch", request)
large = b"<Delete>" + b" " * (5 << 20) + b"</Delete>"
expect(400, "MaxMessageLengthExceeded", signed("POST", "/s3/depot/files?delete", large))
expect(400, "MalformedXML", signed("POST", "/s3/depot/files?delete", b"<Delete><Object>"))
assert sent(*signed("GET", PATH)) == (200, "kept"), "nothing of these was done"

# A part whose upload is not named is no file.
for query in ["partNumber=1", "uploadId=x", "uploadId=", "partNumber=x"]:
    expect(400, "InvalidArgument", signed("PUT", f"{PATH}?{query}", b"part"))
    headers = {"x-amz-copy-source": "files/own/ann/a"}
    expect(400, "InvalidArgument", signed("PUT", f"/s3/depot/files/own/ann/c?{query}", b"", headers))
assert sent(*signed("GET", PATH)) == (200, "kept"), "nothing of these was done"

# Quotas and rates.
narrow = "/s3/depot/narrow"
assert sent(*signed("PUT", f"{narrow}/a", b"x" * 600)) == (200, "")
expect(507, "InsufficientStorage", signed("PUT", f"{narrow}/b", b"x" * 401))
expect(400, "EntityTooLarge", signed("PUT", f"{narrow}/b", b"x" * 1001))
expect(507, "InsufficientStorage", signed("PUT", f"{narrow}/b", b"", {"x-amz-copy-source": "narrow/a"}))
begun = sent(*signed("POST", f"{narrow}/b?uploads"))
upload = re.search("<UploadId>(.*?)</UploadId>", begun[1]).group(1)
expect(507, "InsufficientStorage", signed("PUT", f"{narrow}/b?partNumber=1&uploadId={upload}", b"x" * 401))
assert sent(*signed("PUT", f"{narrow}/b?partNumber=1&uploadId={upload}", b"x" * 400)) == (200, "")
expect(507, "InsufficientStorage", signed("PUT", f"{narrow}/c", b"x"))
listed_parts = sent(*signed("GET", f"{narrow}/b?uploadId={upload}"))[1]
tag = re.search("<ETag>(.*?)</ETag>", listed_parts).group(1)
parts = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
assert sent(*signed("POST", f"{narrow}/b?uploadId={upload}", parts.encode()))[0] == 200, "its parts hold the room"
expect(507, "InsufficientStorage", signed("PUT", f"{narrow}/c", b"x"))
for key_of, status in [(key, 200), (key, 200), (key, 503)]:
    assert sent(*signed("PUT", "/s3/depot/slow/a", b"x", by=key_of))[0] == status
assert sent(*signed("PUT", "/s3/depot/slow/a", b"x", by=user_key))[0] == 200, "each key has its own"

# Presigned addresses.
assert sent(*signed("GET", PATH, query=60)) == (200, "kept")
expect(403, "AccessDenied", signed("GET", PATH, query=60, at=datetime.timedelta(seconds=-61)))
expect(400, "AuthorizationQueryParametersError", signed("GET", PATH, query=604801))
expect(403, "RequestTimeTooSkewed", signed("GET", PATH, query=60, at=datetime.timedelta(minutes=16)))
request = signed("GET", PATH, query=60)
for path in [
    request[1].replace("/ann/a?", "/ann/b?"),
    request[1].replace("Expires=60", "Expires=6000"),
    request[1] + "&response-content-type=text%2Fhtml",
]:
    expect(403, "SignatureDoesNotMatch", ["GET", path, {}])
expect(403, "SignatureDoesNotMatch", ["PUT", request[1], {}, b"x"])
expect(403, "AccessDenied", ["GET", request[1], {"x-amz-meta-a": "b"}])
expect(400, "InvalidArgument", ["GET", request[1], {"Authorization": "AWS4-HMAC-SHA256 x"}])


def version_2(path):
    date = email.utils.formatdate(usegmt=True)
    text = f"GET\n\n\n{date}\n{path}".encode()
    told = base64.b64encode(hmac.new(secret.encode(), text, "sha1").digest()).decode()
    return ["GET", path, {"Date": date, "Authorization": f"AWS {key}:{told}"}]


expect(400, "InvalidRequest", version_2(PATH))
form = b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\na\r\n--x--\r\n'
for content_type in ["multipart/form-data; boundary=x", "Multipart/Form-Data; boundary=x"]:
    expect(501, "NotImplemented", ["POST", "/s3/depot/files", {"Content-Type": content_type}, form])

# What a browser would run is saved, whatever an address asks for.
inline = "response-content-disposition=inline"
html = "response-content-type=text%2Fhtml"
assert sent(*signed("GET", f"{PATH}?{inline}", query=60)) == (200, "kept")
expect(400, "InvalidArgument", signed("GET", f"{PATH}?{html}&{inline}", query=60))
for path, kind in [(f"{PATH}?{html}", "attachment"), (f"{PATH}?{html}&response-content-disposition=attachment", "attachment"), (PATH, "None")]:
    method, path, headers, _ = signed("GET", path, query=60)
    connection = http.client.HTTPConnection(address)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200 and str(answer.headers["content-disposition"]).startswith(kind), answer.headers
    assert "sandbox" in answer.headers["content-security-policy"], answer.headers
    connection.close()

# Keys.
expect(400, "InvalidArgument", signed("GET", "/s3/depot/files?list-type=2&prefix=%2F"))
for path, status, code in [
    ("a/../b", 400, "InvalidArgument"),
    ("../../etc/passwd", 400, "InvalidArgument"),
    ("a/./b", 400, "InvalidArgument"),
    ("a//b", 400, "InvalidArgument"),
    ("a%00b", 400, "InvalidArgument"),
    ("a%0Ab", 400, "InvalidArgument"),
    ("a%5Cb", 400, "InvalidArgument"),
    (".perigee/x", 400, "InvalidArgument"),
    (".PERIGEE/parts/x", 400, "InvalidArgument"),
    ("a%FFb", 400, "InvalidURI"),
    ("x" * 256, 400, "InvalidArgument"),
    ("a/" * 600 + "b", 400, "KeyTooLongError"),
    ("own%2Fann%2F..%2Fb", 403, "SignatureDoesNotMatch"),
    ("dir/", 400, "InvalidArgument"),
]:
    expect(status, code, signed("PUT", f"/s3/depot/files/{path}", b"x"))
for path in ["%2e%2e/x", "a%2Fb"]:
    # Not encoded as the protocol says: never what was signed.
    found = sent(*signed("PUT", f"/s3/depot/files/{path}", b"x"))
    assert found[0] in (400, 403), found

# Rules see the claims of the key, and what is written.
by_user = dict(by=user_key)
own = "/s3/depot/files/own/bob/a"
assert sent(*signed("PUT", own, b"bob's", **by_user)) == (200, "")
assert sent(*signed("GET", own, **by_user)) == (200, "bob's")
expect(403, "AccessDenied", signed("PUT", PATH, b"x", **by_user))
expect(403, "AccessDenied", signed("DELETE", PATH, **by_user))
expect(403, "AccessDenied", signed("GET", "/s3/depot/files?list-type=2", **by_user))
expect(403, "AccessDenied", signed("POST", PATH + "?uploads=", **by_user))
request = signed("PUT", own + "2", b"", {"x-amz-copy-source": "files/own/ann/a"}, **by_user)
expect(403, "AccessDenied", request)
assert sent(*signed("PUT", "/s3/depot/files/small/a", b"0123456789")) == (200, "")
expect(403, "AccessDenied", signed("PUT", "/s3/depot/files/small/a", b"0123456789+"))
status, answer = sent(*signed("POST", "/s3/depot/files/small/b?uploads="))
upload = re.search("<UploadId>(.*?)</UploadId>", answer).group(1)
address_of = f"/s3/depot/files/small/b?partNumber=1&uploadId={upload}"
assert sent(*signed("PUT", address_of, b"0123456789+"))[0] == 200
listed = sent(*signed("GET", f"/s3/depot/files/small/b?uploadId={upload}"))[1]
tag = re.search("<ETag>(.*?)</ETag>", listed).group(1)
complete = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
expect(403, "AccessDenied", signed("POST", f"/s3/depot/files/small/b?uploadId={upload}", complete.encode()))
expect(404, "NoSuchUpload", signed("GET", f"/s3/depot/files/small/b?uploadId={upload}", **by_user))
expect(400, "EntityTooLarge", signed("PUT", "/s3/depot/limited/a.txt", b"x" * 1025, {"content-type": "text/plain"}))
expect(415, "UnsupportedType", signed("PUT", "/s3/depot/limited/a.png", b"x", {"content-type": "image/png"}))
status, answer = sent(*signed("POST", "/s3/depot/limited/b.txt?uploads="))
upload = re.search("<UploadId>(.*?)</UploadId>", answer).group(1)
at = f"/s3/depot/limited/b.txt?uploadId={upload}&partNumber="
assert sent(*signed("PUT", at + "1", b"x" * 600))[0] == 200
assert sent(*signed("PUT", at + "1", b"x" * 1000))[0] == 200
expect(400, "EntityTooLarge", signed("PUT", at + "2", b"x" * 600))

# Lists tell nothing of what rules hide: neither names nor whether there is more.
for name in ["a", "z", *(f"hidden/{number:02}" for number in range(24))]:
    assert sent(*signed("PUT", f"/s3/depot/mixed/{name}", b"x")) == (200, "")


def listed(query, **by):
    """Keys, and whether there are more."""
    status, answer = sent(*signed("GET", f"/s3/depot/mixed?{query}", **by))
    assert status == 200, answer
    return re.findall("<Key>(.*?)</Key>", answer), "<IsTruncated>true</IsTruncated>" in answer


assert listed("list-type=2&max-keys=1&prefix=hi") == (["hidden/00"], True)
for version in ["list-type=2&start-after=", "marker="]:
    assert listed(f"{version}&max-keys=1&prefix=hi", **by_user) == ([], False)
    assert listed(f"{version}&max-keys=1", **by_user) == (["a"], True)
    assert listed(f"{version}a&max-keys=1", **by_user) == (["z"], False)
    assert listed(f"{version}hidden%2F05&max-keys=1", **by_user) == (["z"], False)
    assert listed(f"{version}&max-keys=2", **by_user) == (["a", "z"], False)
assert sent(*signed("GET", "/s3/depot/mixed/hidden/00", **by_user)) == (403, "AccessDenied")


# Bodies in chunks.
def chunked(chunks, trailer=b"", content_sha256="STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
    size = sum(len(chunk) for chunk in chunks)
    headers = {
        "x-amz-content-sha256": content_sha256,
        "x-amz-decoded-content-length": str(size),
        "content-encoding": "aws-chunked",
    }
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    original = S3SigV4Auth.payload
    S3SigV4Auth.payload = lambda self, request: content_sha256
    request = signed("PUT", "/s3/depot/files/chunked", b"", headers)
    S3SigV4Auth.payload = original
    return request


def unsigned_chunks(chunks, checksum):
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body + b"0\r\nx-amz-checksum-crc32:" + checksum + b"\r\n\r\n"


def signed_chunks(request, chunks, break_at=None):
    text = request[2]["Authorization"]
    before = re.search("Signature=([0-9a-f]+)", text).group(1)
    scope = re.search("Credential=[^/]+/([^,]+)", text).group(1)
    date, region, service, last = scope.split("/")
    signing = b"AWS4" + secret.encode()
    for part in [date, region, service, last]:
        signing = hmac.new(signing, part.encode(), "sha256").digest()
    empty, body = hashlib.sha256(b"").hexdigest(), b""
    for index, chunk in enumerate([*chunks, b""]):
        digest = hashlib.sha256(chunk).hexdigest()
        told = f"AWS4-HMAC-SHA256-PAYLOAD\n{request[2]['X-Amz-Date']}\n{scope}\n{before}\n{empty}\n{digest}"
        before = hmac.new(signing, told.encode(), "sha256").hexdigest()
        sent_chunk = chunk[:-1] + b"!" if index == break_at else chunk
        body += b"%x;chunk-signature=%s\r\n%s\r\n" % (len(chunk), before.encode(), sent_chunk)
    return body


chunks = [b"a" * 70000, b"b" * 8192, b"c"]
whole = b"".join(chunks)
right = base64.b64encode(zlib.crc32(whole).to_bytes(4, "big"))
request = chunked(chunks, b"crc32")
request[3] = unsigned_chunks(chunks, right)
assert sent(*request) == (200, ""), sent(*request)
assert sent(*signed("GET", "/s3/depot/files/chunked")) == (200, whole.decode())
large = b"x" * (17 << 20)
request = chunked([large], b"crc32")
request[3] = unsigned_chunks([large], base64.b64encode(zlib.crc32(large).to_bytes(4, "big")))
assert sent(*request) == (200, ""), "one large chunk"
request = chunked([large], content_sha256="STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
request[3] = signed_chunks(request, [large])
expect(400, "InvalidRequest", request)
request = chunked(chunks, b"crc32")
request[3] = unsigned_chunks(chunks, right)
assert sent(*request) == (200, ""), sent(*request)
for wrong in [
    unsigned_chunks(chunks, base64.b64encode(b"0000")),
    unsigned_chunks(chunks[:2], right),
    unsigned_chunks([b"other"], right),
]:
    request = chunked(chunks, b"crc32")
    request[3] = wrong
    status, code = sent(*request)
    assert (status, code) in [(400, "BadDigest"), (400, "IncompleteBody"), (400, "InvalidRequest")], (status, code)
signature = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
request = chunked(chunks, content_sha256=signature)
request[3] = signed_chunks(request, chunks)
assert sent(*request) == (200, ""), "chunks that are signed"
for break_at in range(3):
    request = chunked(chunks, content_sha256=signature)
    request[3] = signed_chunks(request, chunks, break_at)
    expect(403, "SignatureDoesNotMatch", request)
assert sent(*signed("GET", "/s3/depot/files/chunked")) == (200, whole.decode()), "nothing of these was kept"
print("done")
