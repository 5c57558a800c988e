"use strict";

// The behaviour of the consumer of lesson 5.5: one message at a time, a tour read by its key, changed only
// if its version is still the one that was read, three attempts with growing pauses, a line of log for each
// step. A message whose attempts are used up is dropped; each such loss is one byte in the file GIVEN_UP.

const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const amqplib = require("amqplib");
const { DataTypes, Sequelize } = require("sequelize");

const { DATABASE_URL, GIVEN_UP, QUEUE, RABBITMQ_URL } = process.env;
const ATTEMPTS = 3;
const FIRST_PAUSE_MS = 100;

class GivenUp extends Error {}

const sequelize = new Sequelize(DATABASE_URL, { dialect: "postgres", logging: false });

const Tour = sequelize.define(
  "Tour",
  {
    id: { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true },
    name: { type: DataTypes.STRING, allowNull: false },
    description: { type: DataTypes.TEXT },
    price: { type: DataTypes.DECIMAL(10, 2), allowNull: false },
    available_seats: { type: DataTypes.INTEGER, allowNull: false },
    optimistic_lock_version: { type: DataTypes.INTEGER, allowNull: false },
  },
  { tableName: "lesson_tours", timestamps: true, underscored: true },
);

async function takeSeats(tourId, seats) {
  const tour = await Tour.findByPk(tourId);
  if (tour === null) {
    console.error(`tour ${tourId}: not there`);
    return true;
  }
  if (tour.available_seats < seats) {
    console.warn(`tour ${tourId}: ${tour.available_seats} seats left, ${seats} wanted`);
    return true;
  }
  const version = tour.optimistic_lock_version;
  const left = tour.available_seats - seats;
  const [changed] = await Tour.update(
    { available_seats: left, optimistic_lock_version: version + 1 },
    { where: { id: tourId, optimistic_lock_version: version } },
  );
  if (changed === 1) {
    console.log(`tour ${tourId}: seats ${tour.available_seats} -> ${left}, version ${version + 1}`);
  }
  return changed === 1;
}

async function bookingCreated({ eventId, payload: { tourId, seatsBooked } }) {
  console.log(`event ${eventId}: begun, tour ${tourId}`);
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    if (await takeSeats(tourId, seatsBooked)) return;
    const pause = FIRST_PAUSE_MS * 2 ** attempt;
    console.warn(`event ${eventId}: lost race ${attempt + 1} of ${ATTEMPTS} for tour ${tourId}`);
    console.log(`event ${eventId}: again in ${pause} ms`);
    await sleep(pause);
  }
  throw new GivenUp(`event ${eventId}: given up after ${ATTEMPTS} lost races`);
}

async function main() {
  const connection = await amqplib.connect(RABBITMQ_URL);
  const channel = await connection.createChannel();
  await channel.assertQueue(QUEUE, { durable: true });
  await channel.prefetch(1);
  process.on("SIGTERM", async () => {
    await channel.close();
    await connection.close();
    await sequelize.close();
    process.exit(0);
  });
  await channel.consume(QUEUE, async (message) => {
    if (message === null) return;
    try {
      const event = JSON.parse(message.content.toString());
      console.log("received", event);
      await bookingCreated(event);
      channel.ack(message);
      console.log(`event ${event.eventId}: done`);
    } catch (error) {
      console.error("failed", error);
      channel.nack(message, false, false);
      // Any other failure is a fault of the measurement: it is not counted, so that the run fails.
      if (error instanceof GivenUp) fs.appendFileSync(GIVEN_UP, "x");
    }
  });
  console.log(`waiting for messages of ${QUEUE}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
