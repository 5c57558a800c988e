// Publish a booking, and wait for what becomes of its seats.
//
//     node producer.js --booking BK-1 --tour 1 --seats 2
//
// RABBITMQ_URL names the broker. The exit status is 0 if the booking has its seats, 1 if it was refused,
// 2 if nothing was heard.
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import amqp from "amqplib";

const EXCHANGE = "booking-events";
const QUEUE = "shop.outcomes"; // our own; its name begins as our rights on the broker allow
const HEARD = ["seats.reserved", "seats.rejected", "event.parked"];
const ARGUMENTS = { "x-queue-type": "quorum", "x-delivery-limit": 2 ** 31 - 1 };

const bookingCreated = (booking, tour, seats) => ({
  // Of the fact, not of the attempt: whoever publishes it again, by whatever mishap, uses it again.
  eventId: `shop-${booking}-created`,
  eventType: "BookingCreated",
  timestamp: new Date().toISOString(),
  payload: { bookingId: booking, tourId: tour, seatsBooked: seats },
});

/** Publish an event; resolve when the broker has it safe, reject if it has not. */
function publish(channel, routingKey, event) {
  return new Promise((resolve, reject) => {
    const options = { persistent: true, mandatory: true, contentType: "application/json" };
    channel.once("return", () => reject(new Error(`No queue takes ${routingKey}.`)));
    channel.publish(EXCHANGE, routingKey, Buffer.from(JSON.stringify(event)), options, (error) =>
      error ? reject(error) : resolve(),
    );
  });
}

/** Resolve to what is announced of an event; to nothing if nothing is in time. */
function outcome(channel, eventId, seconds) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, seconds * 1000).unref();
    channel.once("close", () => reject(new Error("The connection is lost.")));
    channel.consume(QUEUE, (message) => {
      if (message === null) return reject(new Error("The queue is gone."));
      const said = JSON.parse(message.content);
      // A system with more than one booking at a time stores here what was said of the others.
      channel.ack(message);
      if (said.payload.causedBy === eventId) resolve(said);
    });
  });
}

async function publishAndWait(event, seconds) {
  const connection = await amqp.connect(process.env.RABBITMQ_URL);
  connection.on("error", () => {}); // it is closed then, too
  try {
    const channel = await connection.createConfirmChannel();
    channel.on("error", () => {});
    // First the queue, then the event: so that no outcome comes before somebody listens.
    await channel.assertQueue(QUEUE, { durable: true, arguments: ARGUMENTS });
    for (const key of HEARD) await channel.bindQueue(QUEUE, EXCHANGE, key);
    await publish(channel, "booking.created", event);
    const said = await outcome(channel, event.eventId, seconds);
    await channel.close(); // else an acknowledgement could stay behind
    return said;
  } finally {
    await connection.close().catch(() => {});
  }
}

const { values } = parseArgs({
  options: {
    booking: { type: "string" },
    tour: { type: "string" },
    seats: { type: "string", default: "1" },
    wait: { type: "string", default: "30" },
  },
});
const event = bookingCreated(values.booking, Number(values.tour), Number(values.seats));
let said;
for (const seconds of [1, 2, 4, 8, null]) {
  try {
    said = await publishAndWait(event, Number(values.wait));
    break;
  } catch (error) {
    if (seconds === null) throw error;
    await pause(seconds * 1000); // it may have arrived: the same event again
  }
}
if (said) console.log(said.eventType, JSON.stringify(said.payload));
else console.log(`Nothing was heard of ${event.eventId} within ${values.wait} s.`);
process.exitCode = !said ? 2 : said.eventType === "SeatsReserved" ? 0 : 1;
