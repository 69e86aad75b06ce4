"""Uploads a file with tuspy in chunks, through failures of the server, and prints the address of the upload:
tus_upload.py ENDPOINT FILE CHUNK METADATA CHECKSUM TOKEN"""

import json
import sys

from tusclient import client

endpoint, file, chunk, metadata, checksum, token = sys.argv[1:]
tus = client.TusClient(endpoint, headers={"Authorization": f"Bearer {token}"} if token else {})
uploader = tus.uploader(
    file,
    chunk_size=int(chunk),
    metadata=json.loads(metadata),
    upload_checksum=checksum == "sha1",
    retries=40,
    retry_delay=1,
)
uploader.upload()
print(uploader.url)
