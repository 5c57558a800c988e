// Keep the seats of every tour and the refunds of every booking, from announcements alone.
//
//     node listener.js state.json
//
// RABBITMQ_URL names the broker. What was heard is in the file before it is acknowledged, so that the
// program may be killed at any moment; what comes twice is applied once.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import amqp from "amqplib";

const EXCHANGE = "booking-events";
const QUEUE = "web.announcements"; // our own; its name begins as our rights on the broker allow
const KEYS = ["tour.availability-changed", "refund.*"];
const ARGUMENTS = {
  "x-queue-type": "quorum", // survives the loss of a node
  "x-single-active-consumer": true, // two of this program keep the order, too
  "x-delivery-limit": 2 ** 31 - 1, // nothing is dropped because it came often
};
const STATUS = {
  RefundRequested: "requested",
  RefundCompleted: "completed",
  RefundFailed: "failed",
  RefundNeedsReview: "needs_review",
  RefundSettled: "settled",
};
const SAVE_AFTER = 50; // milliseconds, in which announcements gather
const FILE = process.argv[2];

const load = () =>
  existsSync(FILE) ? JSON.parse(readFileSync(FILE)) : { heard: {}, tours: {}, refunds: {} };

function save(state) {
  writeFileSync(`${FILE}.new`, JSON.stringify(state), { flush: true });
  renameSync(`${FILE}.new`, FILE);
}

/** Apply an announcement, once; ignore those that we do not know. */
function apply(state, { eventId, eventType, payload }) {
  if (state.heard[eventId]) return;
  if (eventType === "TourAvailabilityChanged") {
    const known = state.tours[payload.tourId];
    if (!known || payload.version > known.version) state.tours[payload.tourId] = payload;
  } else if (eventType in STATUS) {
    const { bookingId, paymentId, seatsRemaining, amount, currency = null, version } = payload;
    const key = JSON.stringify([bookingId, paymentId, seatsRemaining]);
    const known = state.refunds[key];
    if (!known || version > known.version)
      state.refunds[key] = { status: STATUS[eventType], amount, currency, version };
  }
  state.heard[eventId] = true;
}

/** Listen until the connection is lost. */
async function listen() {
  const connection = await amqp.connect(process.env.RABBITMQ_URL);
  connection.on("error", () => {}); // it is closed then, too
  const channel = await connection.createChannel();
  const closed = new Promise((resolve) => channel.once("close", resolve));
  channel.on("error", (error) => console.error(error.message));
  await channel.prefetch(500);
  await channel.assertQueue(QUEUE, { durable: true, arguments: ARGUMENTS });
  for (const key of KEYS) await channel.bindQueue(QUEUE, EXCHANGE, key);

  const state = load();
  let last, timer;
  await channel.consume(QUEUE, (message) => {
    if (message === null) return connection.close(); // the queue is gone: it is declared anew
    try {
      apply(state, JSON.parse(message.content));
    } catch (error) {
      console.error(`Not an announcement: ${error.message}: ${message.content.subarray(0, 200)}`);
    }
    last = message;
    timer ??= setTimeout(() => {
      timer = undefined;
      save(state);
      channel.ack(last, true); // all up to this one
    }, SAVE_AFTER);
  });
  await closed;
  clearTimeout(timer); // what is not acknowledged comes again
  await connection.close().catch(() => {});
}

for (;;) {
  await listen().catch((error) => console.error(error.message));
  await pause(1000);
}
