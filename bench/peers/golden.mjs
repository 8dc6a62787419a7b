// What the JavaScript of IPFS says about the golden files.
//
//   node golden.mjs states    < states.json      [{name, cid}]
//   node golden.mjs manifests < manifests.json   [{name, hex, cid}]
//   node golden.mjs car       < savepoint.car    {roots, blocks}
//
// It computes from the descriptions alone; the CIDs in the files are for the
// caller to compare with.

import { buffer } from 'node:stream/consumers'
import { CarReader } from '@ipld/car'
import * as dagCbor from '@ipld/dag-cbor'
import { BlackHoleBlockstore } from 'blockstore-core/black-hole'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

// The CID profile ipfs-savepoint/v1.
const profile = {
  cidVersion: 1,
  rawLeaves: true,
  reduceSingleLeafToSelf: true,
  chunker: fixedSize({ chunkSize: 1 << 20 }),
  layout: balanced({ maxChildrenPerNode: 1024 }),
  shardSplitStrategy: 'block-bytes',
  shardSplitThresholdBytes: 4096,
  shardFanoutBits: 4,
  wrapWithDirectory: true
}

// The bytes of a document that is described by its length: the high bytes of a
// linear congruential generator whose first state is the length.
function pattern (length) {
  const bytes = new Uint8Array(length)
  let x = length >>> 0
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    bytes[i] = x >>> 24
  }
  return bytes
}

function content (document) {
  if (document.text != null) return Buffer.from(document.text, 'utf8')
  if (document.base64 != null) return Buffer.from(document.base64, 'base64')
  return pattern(document.pattern.length)
}

async function stateCID ({ documents }) {
  const source = Object.entries(documents).map(([path, d]) => ({ path, content: content(d) }))
  let last
  for await (const entry of importer(source, new BlackHoleBlockstore(), profile)) last = entry
  return last.cid
}

// From DAG-JSON as JSON.parse reads it to the values that dag-cbor encodes.
function ipld (value) {
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value)) return value.map(ipld)
  const link = value['/']
  if (typeof link === 'string') return CID.parse(link)
  if (link != null) return new Uint8Array(Buffer.from(link.bytes, 'base64'))
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, ipld(v)]))
}

async function manifest ({ name, value }) {
  const bytes = dagCbor.encode(ipld(value))
  const cid = CID.createV1(dagCbor.code, await sha256.digest(bytes))
  return { name, hex: Buffer.from(bytes).toString('hex'), cid: cid.toString() }
}

async function car (bytes) {
  const reader = await CarReader.fromBytes(bytes)
  const blocks = []
  for await (const { cid, bytes } of reader.blocks()) {
    const hash = await sha256.digest(bytes)
    if (!CID.createV1(cid.code, hash).equals(cid)) throw new Error(`${cid}: the bytes have another hash`)
    blocks.push(cid.toString())
  }
  return { roots: (await reader.getRoots()).map(String), blocks }
}

const input = await buffer(process.stdin)
const modes = {
  states: async () => {
    const out = []
    for (const s of JSON.parse(input)) out.push({ name: s.name, cid: String(await stateCID(s)) })
    return out
  },
  manifests: () => Promise.all(JSON.parse(input).accepted.map(manifest)),
  car: () => car(new Uint8Array(input))
}
console.log(JSON.stringify(await modes[process.argv[2]]()))
