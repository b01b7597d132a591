/* hiredis: its arguments are host:port of each node.
 *
 * As `hiredis load HOST:PORT ...` it reads and writes through these nodes until its input ends.
 * Prints "ok" at its end. Called by tests/clients_hiredis.rs. */

#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(const char *what, const redisContext *context, const redisReply *reply) {
    const char *why = reply && reply->str ? reply->str : context ? context->errstr : "";
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

#define CHECK(truth, context, reply) \
    do { \
        if (!(truth)) fail(#truth, context, reply); \
    } while (0)

static redisContext *open_node(const char *address) {
    char host[256];
    const char *colon = strrchr(address, ':');
    snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
    struct timeval timeout = {15, 0};
    redisContext *context = redisConnectWithTimeout(host, atoi(colon + 1), timeout);
    CHECK(context && !context->err, context, NULL);
    redisSetTimeout(context, timeout);
    return context;
}

/* The reply to one command, which must be of this type. */
static redisReply *say(redisContext *context, int type, const char *format, ...) {
    va_list words;
    va_start(words, format);
    redisReply *reply = redisvCommand(context, format, words);
    va_end(words);
    CHECK(reply && reply->type == type, context, reply);
    return reply;
}

static long long number(redisContext *context, const char *line) {
    redisReply *reply = say(context, REDIS_REPLY_INTEGER, line);
    long long value = reply->integer;
    freeReplyObject(reply);
    return value;
}

static void status(redisContext *context, const char *line) {
    freeReplyObject(say(context, REDIS_REPLY_STATUS, line));
}

static void session(const char *address) {
    redisContext *context = open_node(address);
    redisReply *reply;
    status(context, "FLUSHALL");
    status(context, "SET hi:a 1");
    reply = say(context, REDIS_REPLY_STRING, "GET hi:a");
    CHECK(strcmp(reply->str, "1") == 0, context, reply);
    freeReplyObject(reply);
    freeReplyObject(say(context, REDIS_REPLY_NIL, "GET hi:none"));
    status(context, "SET hi:t x PX 100000 NX");
    CHECK(number(context, "PTTL hi:t") > 98000, context, NULL);

    /* Bytes come back as they went. */
    char bytes[256];
    for (int byte = 0; byte < 256; byte++) bytes[byte] = (char)byte;
    freeReplyObject(
        say(context, REDIS_REPLY_STATUS, "SET hi:bytes %b", bytes, sizeof(bytes)));
    reply = say(context, REDIS_REPLY_STRING, "GET hi:bytes");
    CHECK(reply->len == 256 && memcmp(reply->str, bytes, 256) == 0, context, reply);
    freeReplyObject(reply);

    /* A pipeline. */
    for (int sent = 0; sent < 1000; sent++) redisAppendCommand(context, "INCR hi:n");
    for (int got = 1; got <= 1000; got++) {
        CHECK(redisGetReply(context, (void **)&reply) == REDIS_OK, context, NULL);
        CHECK(reply->type == REDIS_REPLY_INTEGER && reply->integer == got, context, reply);
        freeReplyObject(reply);
    }

    /* Transactions: one that is done, and one whose watched key somebody changes. */
    status(context, "MULTI");
    status(context, "SET hi:b x");
    status(context, "APPEND hi:b y");
    reply = say(context, REDIS_REPLY_ARRAY, "EXEC");
    CHECK(reply->elements == 2 && reply->element[1]->integer == 2, context, reply);
    freeReplyObject(reply);
    redisContext *other = open_node(address);
    status(context, "WATCH hi:a");
    status(other, "SET hi:a 2");
    status(context, "MULTI");
    status(context, "SET hi:a 3");
    freeReplyObject(say(context, REDIS_REPLY_NIL, "EXEC"));

    /* Messages. */
    reply = say(other, REDIS_REPLY_ARRAY, "SUBSCRIBE hi:news");
    freeReplyObject(reply);
    freeReplyObject(say(context, REDIS_REPLY_INTEGER, "PUBLISH hi:news hello"));
    CHECK(redisGetReply(other, (void **)&reply) == REDIS_OK, other, NULL);
    CHECK(strcmp(reply->element[2]->str, "hello") == 0, other, reply);
    freeReplyObject(reply);

    reply = say(context, REDIS_REPLY_ERROR, "INCR hi:b");
    CHECK(strstr(reply->str, "value is not an integer or out of range"), context, reply);
    freeReplyObject(reply);
    redisFree(other);
    redisFree(context);
}

static int has_ended(void) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    return poll(&input, 1, 0) > 0;
}

static void load(int count, char **addresses) {
    redisContext *contexts[8];
    long long done = 0;
    for (int at = 0; at < 8; at++) contexts[at] = open_node(addresses[at % count]);
    for (long long round = 1; !has_ended(); round++) {
        for (int at = 0; at < 8; at++) {
            redisAppendCommand(contexts[at], "INCR hi:load:%d", at);
            redisAppendCommand(contexts[at], "GET hi:load:%d", at);
        }
        for (int at = 0; at < 8; at++) {
            redisReply *reply;
            CHECK(redisGetReply(contexts[at], (void **)&reply) == REDIS_OK, contexts[at], NULL);
            int is_next = reply->type == REDIS_REPLY_INTEGER && reply->integer == round;
            CHECK(is_next, contexts[at], reply);
            freeReplyObject(reply);
            CHECK(redisGetReply(contexts[at], (void **)&reply) == REDIS_OK, contexts[at], NULL);
            CHECK(reply->type == REDIS_REPLY_STRING, contexts[at], reply);
            CHECK(atoll(reply->str) == round, contexts[at], reply);
            freeReplyObject(reply);
            done += 2;
        }
        if (round == 20) {
            puts("ready");
            fflush(stdout);
        }
    }
    for (int at = 0; at < 8; at++) redisFree(contexts[at]);
    printf("ok %lld commands\n", done);
}

int main(int count, char **words) {
    if (count > 2 && strcmp(words[1], "load") == 0) {
        load(count - 2, words + 2);
        return 0;
    }
    for (int at = 1; at < count; at++) session(words[at]);
    printf("ok hiredis %d.%d\n", HIREDIS_MAJOR, HIREDIS_MINOR);
    return 0;
}
