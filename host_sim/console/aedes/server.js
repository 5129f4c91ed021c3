// aedes as a broker: `node server.js SETTINGS`, with JSON of this shape in the file SETTINGS.
//
//   {"host": "127.0.0.1", "port": 1883, "tls_port": 8883, "certificate": "/x.pem",
//    "accounts": "/accounts.json", "delay_ms": 0}
//
// accounts: {"user": {"password": "…", "topics": "the/users/own/"}}, where topics is what his
// topics begin with, or null for none; it is read anew at each login.
// delay_ms: how long the look-up of what is retained takes, as in a store on another machine.

'use strict'

const fs = require('fs')
const net = require('net')
const tls = require('tls')
const { PassThrough } = require('stream')
const aedes = require('aedes')
const memory = require('aedes-persistence')

const settings = JSON.parse(fs.readFileSync(process.argv[2]))

function slowly (persistence, delay) {
  for (const name of ['createRetainedStream', 'createRetainedStreamCombi']) {
    const lookUp = persistence[name]
    persistence[name] = function (...patterns) {
      const found = new PassThrough({ objectMode: true })
      setTimeout(() => lookUp.apply(this, patterns).pipe(found), delay)
      return found
    }
  }
  return persistence
}

const persistence = memory()
const broker = aedes({
  persistence: settings.delay_ms ? slowly(persistence, settings.delay_ms) : persistence
})

broker.authenticate = (client, user, password, done) => {
  const account = JSON.parse(fs.readFileSync(settings.accounts))[user]
  if (!account || !password || password.toString() !== account.password) {
    const error = new Error('not an account')
    error.returnCode = 4
    return done(error, false)
  }
  client.topics = account.topics
  done(null, true)
}

function mayUse (client, topic) {
  return typeof client.topics === 'string' && topic.startsWith(client.topics)
}

broker.authorizePublish = (client, packet, done) => {
  // Without a client it is the broker's own message, such as a will.
  done(!client || mayUse(client, packet.topic) ? null : new Error('not his topic'))
}

broker.authorizeSubscribe = (client, subscription, done) => {
  done(null, mayUse(client, subscription.topic) ? subscription : null)
}

const pem = fs.readFileSync(settings.certificate)
net.createServer(broker.handle).listen(settings.port, settings.host)
tls.createServer({ cert: pem, key: pem }, broker.handle).listen(settings.tls_port, settings.host)
