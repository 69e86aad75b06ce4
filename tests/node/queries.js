'use strict';
// Sends random documents that the published schema allows: node queries.js URL SEED COUNT [TOKEN]
//
// Each is valid for graphql-js. It must be carried out, or refused for what only the database knows; what it answers
// must be of the types that are published.

const {
  getNamedType, isEnumType, isInputObjectType, isLeafType, isListType, isNonNullType, parse, validate,
} = require('graphql');
const { ask, introspect } = require('./schema.js');

const [url, seed, count, token] = process.argv.slice(2);

/** What a valid document may be refused with: the database's own objections, and limits. */
const ALLOWED = ['CONSTRAINT', 'CONFLICT', 'WHERE_REQUIRED', 'REQUIRED', 'OUT_OF_RANGE', 'TOO_COMPLEX'];

const MAX_DEPTH = 3;

/** A generator of numbers that a seed determines (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const random = generator(Number(seed));
const below = (limit) => Math.floor(random() * limit);
const one = (list) => list[below(list.length)];
const some = (list, most) => list.filter(() => random() < most / list.length).slice(0, most);

const SCALARS = {
  Boolean: () => one(['true', 'false']),
  Int: () => String(below(100)),
  BigInt: () => one(['7', '"7"', String(below(1000)), '9007199254740993']),
  Float: () => one(['1.5', '2', '-0.25']),
  Decimal: () => one(['1.99', '"0.10"', '3']),
  String: () => JSON.stringify(one(['', 'a', 'AC/DC', 'é "x"'])),
  Bytes: () => '"AQI="',
  Date: () => '"2009-01-31"',
  Time: () => '"13:14:15.5"',
  Timestamp: () => '"2009-01-31T13:14:15Z"',
  UUID: () => '"0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d"',
  JSON: () => one(['{a: [1, null]}', '"x"', '2']),
  Any: () => one(['1', '"x"']),
};

/** A literal of an input type. */
function literal(type, depth) {
  if (isNonNullType(type)) return literal(type.ofType, depth);
  if (isListType(type)) return `[${Array.from({ length: 1 + below(2) }, () => literal(type.ofType, depth)).join(' ')}]`;
  if (isEnumType(type)) return one(type.getValues()).name;
  if (isInputObjectType(type)) return object(type, depth);
  return SCALARS[type.name]();
}

/** Whether an optional member of an input can be written without lists and objects inside one another without end. */
function fits(type, depth) {
  const named = getNamedType(type);
  if (!isInputObjectType(named)) return isEnumType(named) || named.name in SCALARS;
  return depth > 0 && Object.values(named.getFields()).some((field) => fits(field.type, depth - 1));
}

function object(type, depth) {
  const fields = Object.values(type.getFields());
  const required = fields.filter((field) => isNonNullType(field.type));
  const optional = fields.filter((field) => !isNonNullType(field.type) && fits(field.type, depth - 1));
  const chosen = [...required, ...some(optional, 2)];
  // An empty condition on a column says nothing and is refused.
  if (chosen.length === 0 && optional.length > 0) chosen.push(one(optional));
  return `{${chosen.map((field) => `${field.name}: ${literal(field.type, depth - 1)}`).join(', ')}}`;
}

function argumentsOf(field) {
  // A column is changed in one way at a time: what is set is not added to.
  const possible = field.args.filter((arg) => arg.name !== 'inc' && (isNonNullType(arg.type) || fits(arg.type, 3)));
  const isWanted = (arg) => isNonNullType(arg.type) || ['set', 'limit'].includes(arg.name);
  const chosen = possible.filter((arg) => isWanted(arg) || random() < 0.4);
  // Without limits, lists in lists come to more than an answer may have.
  const value = (arg) => (arg.name === 'limit' ? String(below(6)) : literal(arg.type, 3));
  const given = chosen.map((arg) => `${arg.name}: ${value(arg)}`);
  return given.length > 0 ? `(${given.join(', ')})` : '';
}

function selection(type, depth) {
  const named = getNamedType(type);
  if (isLeafType(named)) return '';
  const fields = Object.values(named.getFields()).filter((field) => depth > 1 || isLeafType(getNamedType(field.type)));
  const chosen = some(fields, 4);
  if (chosen.length === 0) return '{ __typename }';
  return `{ ${chosen.map((field) => `${field.name}${argumentsOf(field)} ${selection(field.type, depth - 1)}`).join(' ')} }`;
}

/** What is wrong with a value as one of a type, with its place. */
function misfit(type, value, node, place) {
  if (isNonNullType(type)) return value === null ? `${place} is null` : misfit(type.ofType, value, node, place);
  if (value === null) return undefined;
  if (isListType(type)) {
    if (!Array.isArray(value)) return `${place} is no list`;
    return value.map((item, index) => misfit(type.ofType, item, node, `${place}.${index}`)).find(Boolean);
  }
  if (isLeafType(type)) {
    const kinds = { Int: 'number', Boolean: 'boolean', String: 'string', Float: 'number', BigInt: 'number' };
    const wanted = kinds[type.name];
    return wanted && typeof value !== wanted ? `${place} of ${type} is ${JSON.stringify(value)}` : undefined;
  }
  return node.selectionSet.selections
    .filter((inner) => inner.name.value !== '__typename')
    .map((inner) => misfit(type.getFields()[inner.name.value].type, value[inner.name.value], inner, `${place}.${inner.name.value}`))
    .find(Boolean);
}

async function main() {
  const { schema } = await introspect(url, token);
  const roots = [['query', schema.getQueryType()], ['mutation', schema.getMutationType()]];
  const fields = roots.flatMap(([kind, type]) => Object.values(type?.getFields() ?? {}).map((field) => ({ kind, type, field })));
  const done = { answered: 0, refused: {} };
  for (let turn = 0; turn < Number(count); turn += 1) {
    const { kind, type, field } = one(fields);
    const text = `${kind} { ${field.name}${argumentsOf(field)} ${selection(field.type, MAX_DEPTH)} }`;
    const document = parse(text);
    const invalid = validate(schema, document);
    if (invalid.length > 0) throw new Error(`${text}\nis no valid document: ${invalid[0].message}`);
    const answer = await ask(url, token, text);
    const error = answer.errors?.[0];
    if (error && !ALLOWED.includes(error.extensions.code)) {
      throw new Error(`${text}\nis refused: ${error.extensions.code} ${error.message}`);
    }
    if (error) {
      done.refused[error.extensions.code] = (done.refused[error.extensions.code] ?? 0) + 1;
      continue;
    }
    const wrong = misfit(type, answer.data, document.definitions[0], 'data');
    if (wrong) throw new Error(`${text}\nanswers what is not published: ${wrong}`);
    done.answered += 1;
  }
  console.log(JSON.stringify(done));
}

main();
