"""Operations of the S3 protocol with boto3, unmodified: s3_operations.py ENDPOINT KEY SECRET"""

import io
import sys
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, key, secret = sys.argv[1:]
s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name="eu-anywhere-1",
    aws_access_key_id=key,
    aws_secret_access_key=secret,
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 4}),
)
B = "files"
MIB = 1 << 20


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, (found, code, arguments, error)
        return error.response
    raise AssertionError(f"{code} was expected: {arguments}")


def keys(answer):
    return [each["Key"] for each in answer.get("Contents", [])], [
        each["Prefix"] for each in answer.get("CommonPrefixes", [])
    ]


assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["files", "second"]
s3.head_bucket(Bucket=B)
refused("404", s3.head_bucket, Bucket="none-such")
refused("NoSuchBucket", s3.get_object, Bucket="none-such", Key="a")

# Put, get and head.
put = s3.put_object(Bucket=B, Key="d/a b+é.txt", Body=b"hello", ContentType="text/x-own", Metadata={"Author": "ann"})
etag = put["ETag"]
assert etag.endswith('-1"'), etag
got = s3.get_object(Bucket=B, Key="d/a b+é.txt")
assert got["Body"].read() == b"hello" and got["ETag"] == etag, got
assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == ("text/x-own", {"author": "ann"}, 5), got
headers = got["ResponseMetadata"]["HTTPHeaders"]
assert (headers["content-security-policy"], headers["x-content-type-options"]) == ("sandbox", "nosniff"), headers
head = s3.head_object(Bucket=B, Key="d/a b+é.txt")
assert (head["ContentLength"], head["ETag"], head["Metadata"]) == (5, etag, {"author": "ann"}), head
s3.put_object(Bucket=B, Key="page.html", Body=b"<script>", ContentType="text/html")
assert s3.get_object(Bucket=B, Key="page.html")["ContentDisposition"].startswith("attachment"), "no page is shown"
s3.put_object(Bucket=B, Key="empty", Body=b"")
assert s3.get_object(Bucket=B, Key="empty")["Body"].read() == b""
refused("NoSuchKey", s3.get_object, Bucket=B, Key="none")
refused("404", s3.head_object, Bucket=B, Key="none")
refused("NoSuchKey", s3.get_object, Bucket=B, Key="d")
refused("NoSuchKey", s3.get_object, Bucket=B, Key="d/")
refused("Conflict", s3.put_object, Bucket=B, Key="d", Body=b"")
for algorithm in ["CRC32", "SHA1", "SHA256"]:
    s3.put_object(Bucket=B, Key="sum", Body=b"sum", ChecksumAlgorithm=algorithm)

# Ranges and conditions.
for asked, status, body, told in [
    ("bytes=1-2", 206, b"el", "bytes 1-2/5"),
    ("bytes=3-", 206, b"lo", "bytes 3-4/5"),
    ("bytes=-2", 206, b"lo", "bytes 3-4/5"),
]:
    part = s3.get_object(Bucket=B, Key="d/a b+é.txt", Range=asked)
    found = (part["ResponseMetadata"]["HTTPStatusCode"], part["Body"].read(), part["ContentRange"])
    assert found == (status, body, told), found
    part = s3.head_object(Bucket=B, Key="d/a b+é.txt", Range=asked)
    headers = part["ResponseMetadata"]["HTTPHeaders"]
    found = (part["ResponseMetadata"]["HTTPStatusCode"], part["ContentLength"], headers["content-range"])
    assert found == (status, len(body), told), found
refused("InvalidRange", s3.get_object, Bucket=B, Key="d/a b+é.txt", Range="bytes=9-")
refused("416", s3.head_object, Bucket=B, Key="d/a b+é.txt", Range="bytes=9-")
assert s3.get_object(Bucket=B, Key="d/a b+é.txt", IfMatch=etag)["ETag"] == etag
refused("PreconditionFailed", s3.get_object, Bucket=B, Key="d/a b+é.txt", IfMatch='"other-1"')
not_modified = refused("304", s3.get_object, Bucket=B, Key="d/a b+é.txt", IfNoneMatch=etag)
assert not_modified["ResponseMetadata"]["HTTPHeaders"]["etag"] == etag, not_modified
refused("PreconditionFailed", s3.put_object, Bucket=B, Key="empty", Body=b"x", IfNoneMatch="*")
refused("PreconditionFailed", s3.put_object, Bucket=B, Key="empty", Body=b"x", IfMatch=etag)
s3.put_object(Bucket=B, Key="empty", Body=b"x", IfMatch=s3.head_object(Bucket=B, Key="empty")["ETag"])

# Copies.
copied = s3.copy_object(Bucket="second", Key="x/copy", CopySource={"Bucket": B, "Key": "d/a b+é.txt"})
assert copied["CopyObjectResult"]["ETag"].endswith('-1"'), copied
got = s3.get_object(Bucket="second", Key="x/copy")
assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"hello", {"author": "ann"}, "text/x-own"), got
own = {"Bucket": B, "Key": "d/a b+é.txt"}
refused("InvalidRequest", s3.copy_object, **own, CopySource=own)
s3.copy_object(**own, CopySource=own, MetadataDirective="REPLACE", Metadata={"author": "bob"}, ContentType="text/y-own")
got = s3.get_object(**own)
assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"hello", {"author": "bob"}, "text/y-own"), got
refused("NoSuchKey", s3.copy_object, Bucket=B, Key="c", CopySource={"Bucket": B, "Key": "none"})
own_tag = s3.head_object(**own)["ETag"]
s3.copy_object(Bucket=B, Key="c", CopySource=own, CopySourceIfMatch=own_tag)
for condition in [{"CopySourceIfMatch": '"other-1"'}, {"CopySourceIfNoneMatch": own_tag}]:
    refused("PreconditionFailed", s3.copy_object, Bucket=B, Key="c", CopySource=own, **condition)

# Lists.
names = ["l/a", "l/a.x", "l/a/1", "l/a/2", "l/ab", "l/b/c/d", "l/z é+%"]
for name in names:
    if name != "l/a":
        s3.put_object(Bucket=B, Key=name, Body=name.encode())
names.remove("l/a")
for recursive in [{}, {"Delimiter": ""}]:
    assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/", **recursive)) == (names, [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/", Delimiter="/")) == (
    ["l/a.x", "l/ab", "l/z é+%"],
    ["l/a/", "l/b/"],
)
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/a")) == (["l/a.x", "l/a/1", "l/a/2", "l/ab"], [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/a", Delimiter="/")) == (["l/a.x", "l/ab"], ["l/a/"])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/a/")) == (["l/a/1", "l/a/2"], [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="none/")) == ([], [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/c")) == ([], [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/", StartAfter="l/a/1")) == (["l/a/2", "l/ab", "l/b/c/d", "l/z é+%"], [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/", StartAfter="a")) == (names, [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/", StartAfter="m")) == ([], [])
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/", Delimiter="/", StartAfter="l/a/1"))[1] == ["l/a/", "l/b/"]
first = s3.list_objects_v2(Bucket=B, Prefix="l/")["Contents"][0]
tag = s3.head_object(Bucket=B, Key="l/a.x")["ETag"]
# A store of others may leave them out of its lists.
assert (first["Size"], first.get("ETag", tag)) == (5, tag), first
for call in ["list_objects_v2", "list_objects"]:
    for delimiter, expected in [("", (names, [])), ("/", (["l/a.x", "l/ab", "l/z é+%"], ["l/a/", "l/b/"]))]:
        found = ([], [])
        pages = s3.get_paginator(call).paginate(
            Bucket=B, Prefix="l/", Delimiter=delimiter, PaginationConfig={"PageSize": 1}
        )
        for page in pages:
            objects, prefixes = keys(page)
            assert len(objects) + len(prefixes) <= 1, page
            found[0].extend(objects)
            found[1].extend(prefixes)
        assert found == expected, (call, found)
assert s3.list_objects_v2(Bucket=B, Prefix="l/", MaxKeys=0)["KeyCount"] == 0
refused("NotImplemented", s3.list_objects_v2, Bucket=B, Delimiter="x")
refused("InvalidArgument", s3.list_objects_v2, Bucket=B, ContinuationToken="forged")
refused("InvalidArgument", s3.list_objects_v2, Bucket=B, Prefix="../")

# Deletions.
s3.delete_object(Bucket=B, Key="l/ab")
s3.delete_object(Bucket=B, Key="l/ab")
s3.delete_object(Bucket=B, Key="l/b/")
many = s3.delete_objects(Bucket=B, Delete={"Objects": [{"Key": "l/a.x"}, {"Key": "l/a/1"}, {"Key": "../x"}]})
assert [each["Key"] for each in many["Deleted"]] == ["l/a.x", "l/a/1"], many
assert [(each["Key"], each["Code"]) for each in many["Errors"]] == [("../x", "InvalidArgument")], many
assert keys(s3.list_objects_v2(Bucket=B, Prefix="l/"))[0] == ["l/a/2", "l/b/c/d", "l/z é+%"]

# Uploads in parts.
data = bytes(range(256)) * (MIB // 16)
config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
arguments = {"ContentType": "video/x-own", "Metadata": {"k": "v"}}
s3.upload_fileobj(io.BytesIO(data), B, "m/large", Config=config, ExtraArgs=arguments)
head = s3.head_object(Bucket=B, Key="m/large")
assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (len(data), "video/x-own", {"k": "v"}), head
target = io.BytesIO()
s3.download_fileobj(B, "m/large", target, Config=config)
assert target.getvalue() == data
s3.copy({"Bucket": B, "Key": "m/large"}, B, "m/copy", Config=config)
assert s3.get_object(Bucket=B, Key="m/copy")["Body"].read() == data

at = {"Bucket": B, "Key": "m/parts"}
upload = {**at, "UploadId": s3.create_multipart_upload(**at)["UploadId"]}
third = s3.upload_part(**upload, PartNumber=9, Body=b"end")
s3.upload_part(**upload, PartNumber=2, Body=b"old")
second = s3.upload_part(**upload, PartNumber=2, Body=data[: 5 * MIB])
small = s3.upload_part(**upload, PartNumber=1, Body=b"small")
listed = s3.list_parts(**upload)
assert [(part["PartNumber"], part["Size"]) for part in listed["Parts"]] == [(1, 5), (2, 5 * MIB), (9, 3)], listed
page = s3.list_parts(**upload, MaxParts=1, PartNumberMarker=1)
assert page["IsTruncated"] and [part["PartNumber"] for part in page["Parts"]] == [2], page
refused("404", s3.head_object, **at)


def parts(*chosen):
    return {"Parts": [{"PartNumber": number, "ETag": part["ETag"]} for number, part in chosen]}


for code, chosen in [
    ("EntityTooSmall", parts((1, small), (2, second))),
    ("InvalidPartOrder", parts((9, third), (2, second))),
    ("InvalidPart", parts((2, third))),
    ("InvalidPart", parts((3, third))),
    ("MalformedXML", parts()),
]:
    refused(code, s3.complete_multipart_upload, **upload, MultipartUpload=chosen)
refused("InvalidArgument", s3.upload_part, **upload, PartNumber=10001, Body=b"")
refused("InvalidArgument", s3.upload_part, **upload, PartNumber=0, Body=b"")
done = parts((2, second), (9, third))
joined = s3.complete_multipart_upload(**upload, MultipartUpload=done)
assert s3.get_object(**at)["Body"].read() == data[: 5 * MIB] + b"end"
assert s3.head_object(**at)["ETag"] == joined["ETag"]
again = s3.complete_multipart_upload(**upload, MultipartUpload=done)
assert again["ETag"] == joined["ETag"], "who did not see the answer asks again"
refused("NoSuchUpload", s3.upload_part, **upload, PartNumber=1, Body=b"x")
other = {**at, "Key": "m/other"}
upload = {**other, "UploadId": s3.create_multipart_upload(**other)["UploadId"]}
s3.upload_part(**upload, PartNumber=1, Body=b"x")
refused("NoSuchUpload", s3.list_parts, **{**upload, "Key": "m/parts"})
s3.abort_multipart_upload(**upload)
for call in [s3.list_parts, s3.abort_multipart_upload]:
    refused("NoSuchUpload", call, **upload)
refused("NoSuchUpload", s3.upload_part, **{**upload, "UploadId": "../../x"}, PartNumber=1, Body=b"x")
uploads = [s3.create_multipart_upload(Bucket=B, Key="m/many")["UploadId"] for _ in range(64)]
refused("SlowDown", s3.create_multipart_upload, Bucket=B, Key="m/many")
listed = s3.list_multipart_uploads(Bucket=B)
assert not listed["IsTruncated"], listed
assert sorted(each["UploadId"] for each in listed["Uploads"]) == sorted(uploads), listed
assert {each["Key"] for each in listed["Uploads"]} == {"m/many"}, listed
assert "Uploads" not in s3.list_multipart_uploads(Bucket=B, Prefix="n"), "none begins so"
pages, found = s3.get_paginator("list_multipart_uploads"), []
for page in pages.paginate(Bucket=B, Prefix="m/", MaxUploads=10):
    assert len(page["Uploads"]) <= 10, page
    found += [each["UploadId"] for each in page["Uploads"]]
assert found == [each["UploadId"] for each in listed["Uploads"]] and len(found) == 64, found
page = s3.list_multipart_uploads(Bucket=B, MaxUploads=5000)
assert page["MaxUploads"] == 1000 and len(page["Uploads"]) == 64, page
after = s3.list_multipart_uploads(Bucket=B, KeyMarker="m/many", UploadIdMarker=found[61])
assert [each["UploadId"] for each in after["Uploads"]] == found[62:], after
assert "Uploads" not in s3.list_multipart_uploads(Bucket=B, KeyMarker="m/many"), "none is to a later key"
refused("InvalidArgument", s3.list_multipart_uploads, Bucket=B, MaxUploads=-1)
refused("NotImplemented", s3.list_multipart_uploads, Bucket=B, Delimiter="/")
for upload in uploads:
    s3.abort_multipart_upload(Bucket=B, Key="m/many", UploadId=upload)
assert "Uploads" not in s3.list_multipart_uploads(Bucket=B), "all have ended"

# Presigned addresses.
url = s3.generate_presigned_url("get_object", Params={"Bucket": B, "Key": "d/a b+é.txt"}, ExpiresIn=60)
with urllib.request.urlopen(url) as answer:
    assert answer.read() == b"hello"
url = s3.generate_presigned_url("put_object", Params={"Bucket": B, "Key": "signed"}, ExpiresIn=60)
with urllib.request.urlopen(urllib.request.Request(url, data=b"by address", method="PUT")) as answer:
    assert answer.status == 200
assert s3.get_object(Bucket=B, Key="signed")["Body"].read() == b"by address"

# What is not supported says so.
refused("NotImplemented", s3.create_bucket, Bucket="new")
refused("NotImplemented", s3.delete_bucket, Bucket="second")
refused("NotImplemented", s3.put_object, Bucket=B, Key="t", Body=b"", Tagging="a=b")
refused("NotImplemented", s3.put_object, Bucket=B, Key="t", Body=b"", CacheControl="no-cache")
refused("NotImplemented", s3.put_object, Bucket=B, Key="t", Body=b"", ContentEncoding="gzip")
refused("NotImplemented", s3.put_object, Bucket=B, Key="t", Body=b"", ACL="public-read")
refused("NotImplemented", s3.put_object_tagging, Bucket=B, Key="empty", Tagging={"TagSet": []})
refused("NoSuchVersion", s3.get_object, Bucket=B, Key="empty", VersionId="1")
print("done")
