/* Consume messages and acknowledge them, and nothing else: what the broker and a client in C can do.
 *
 * consume HOST PORT USER PASSWORD VHOST QUEUE COUNT FROM BATCH
 * Says "begin" after FROM messages and "end" after COUNT, and waits for a line each time; acknowledges BATCH
 * with one command.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(const char *what) {
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

static void check(amqp_connection_state_t connection, const char *what) {
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

int main(int argc, char **argv) {
  if (argc != 10) fail("reading the arguments");
  long count = atol(argv[7]), from = atol(argv[8]), batch = atol(argv[9]), taken = 0;
  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (!socket || amqp_socket_open(socket, argv[1], atoi(argv[2]))) fail("connecting");
  if (amqp_login(connection, argv[5], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[3], argv[4])
          .reply_type != AMQP_RESPONSE_NORMAL)
    fail("logging in");
  amqp_channel_open(connection, 1);
  check(connection, "opening a channel");
  amqp_basic_qos(connection, 1, 0, 2 * batch, 0);
  check(connection, "setting the prefetch");
  amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[6]), amqp_empty_bytes, 0, 0, 0,
                     amqp_empty_table);
  check(connection, "consuming");
  while (taken < count) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    if (amqp_consume_message(connection, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
      fail("reading a message");
    taken++;
    if (taken % batch == 0 || taken == count)
      if (amqp_basic_ack(connection, 1, envelope.delivery_tag, 1)) fail("acknowledging");
    amqp_destroy_envelope(&envelope);
    if (taken == from || taken == count) {
      puts(taken == from ? "begin" : "end");
      fflush(stdout);
      getchar();
    }
  }
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
