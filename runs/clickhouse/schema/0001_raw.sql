CREATE TABLE {prefix}incoming (
    run String COMMENT 'public code of the Run',
    key String COMMENT 'object key of the segment',
    type LowCardinality(String) COMMENT 'events, log, journal or truth',
    shard UInt32 COMMENT 'from the key',
    attempt UInt32 COMMENT 'from the key',
    seq UInt32 COMMENT 'from the key',
    line UInt32 COMMENT '1-based; 0 stands for the segment itself',
    text String COMMENT 'the line without its newline',
    lines UInt32 COMMENT 'lines of the segment',
    bytes UInt64 COMMENT 'size after decompression',
    ended UInt8 COMMENT 'the segment ends with a newline',
    first_line UInt64 COMMENT 'number of the first line of a log segment',
    header UInt8 COMMENT 'a log segment says its first line',
    per_shard UInt32 COMMENT 'Plan: sandboxes_per_shard',
    sandbox_count UInt32 COMMENT 'Plan: sandbox_count',
    shard_count UInt32 COMMENT 'Plan: shard_count'
) ENGINE = Null;

CREATE TABLE {prefix}segments (
    run String COMMENT 'public code of the Run',
    key String COMMENT 'object key',
    type LowCardinality(String) COMMENT 'events, log, journal or truth',
    shard UInt32 COMMENT 'from the key',
    attempt UInt32 COMMENT 'from the key',
    seq UInt32 COMMENT 'from the key',
    lines UInt32 COMMENT 'lines of the segment',
    bytes UInt64 COMMENT 'size after decompression'
) ENGINE = ReplacingMergeTree PARTITION BY run ORDER BY (run, key);

CREATE TABLE {prefix}parsed (
    run String COMMENT 'public code of the Run',
    key String COMMENT 'object key',
    shard UInt32 COMMENT 'from the key',
    attempt UInt32 COMMENT 'from the key',
    seq UInt32 COMMENT 'from the key',
    line UInt32 COMMENT '1-based',
    text String COMMENT 'the line',
    why LowCardinality(String) COMMENT 'why it is a defect, or empty',
    n Nullable(Int64) COMMENT 'event number',
    at_us Nullable(Int64) COMMENT 'agent time',
    kind Nullable(String) COMMENT 'kind of event',
    known UInt8 COMMENT 'the kind is of version 1',
    sandbox Nullable(Int64) COMMENT 'global index',
    latency_us Nullable(Int64) COMMENT 'latency',
    sent_us Nullable(Int64) COMMENT 'sending of a probe',
    last Nullable(Bool) COMMENT 'field final',
    cause Nullable(String) COMMENT 'cause of a failure',
    origin Nullable(String) COMMENT 'origin of a failure',
    j Tuple(
        v Nullable(Int64), n Nullable(Int64), at Nullable(Int64), kind Nullable(String),
        sandbox Nullable(Int64), latency_us Nullable(Int64), sent_us Nullable(Int64),
        final Nullable(Bool), cause Nullable(String), origin Nullable(String),
        intended_us Nullable(Int64), provider_id Nullable(String), reused Nullable(Bool),
        dns_us Nullable(Int64), connect_us Nullable(Int64), tls_us Nullable(Int64),
        status Nullable(Int64), message Nullable(String), tti_us Nullable(Int64),
        tries Nullable(Int64), ticks Nullable(Int64), witness_ok Nullable(Bool),
        t1_us Nullable(Int64), t2_us Nullable(Int64), t3_us Nullable(Int64),
        clock_id Nullable(String), offset_us Nullable(Int64), half_rtt_us Nullable(Int64),
        t0_us Nullable(Int64), t_hold_us Nullable(Int64), t_end_us Nullable(Int64),
        t_destroy_us Nullable(Int64), autonomous Nullable(Bool), reason Nullable(String),
        orphans Nullable(Int64), connections Nullable(Int64), host Nullable(String),
        pid Nullable(Int64), version Nullable(String), cpu_count Nullable(Int64),
        egress Nullable(String), cpu_pct Nullable(Float64), steal_pct Nullable(Float64),
        rss_bytes Nullable(Int64), loop_lag_us Nullable(Int64), open_fds Nullable(Int64),
        in_flight Nullable(Int64), alive Nullable(Int64), queued_events Nullable(Int64),
        dropped_events Nullable(Int64),
        cpus Nullable(Float64), memory_bytes Nullable(Int64)
    ) COMMENT 'all fields'
) ENGINE = Null;

CREATE TABLE {prefix}events (
    run String COMMENT 'public code of the Run',
    shard UInt32 COMMENT 'from the key',
    attempt UInt32 COMMENT 'from the key',
    n UInt64 COMMENT 'event number within the attempt',
    seq UInt32 COMMENT 'segment it came in',
    line UInt32 COMMENT '1-based line in the segment',
    content UInt64 COMMENT 'hash of the whole line: same content, same event',
    kind LowCardinality(String) COMMENT 'kind of event, also unknown ones',
    judged UInt8 COMMENT 'of a known kind and not foreign: takes part in judgement',
    at_us Int64 COMMENT 'agent time',
    sandbox Nullable(UInt32) COMMENT 'global index',
    latency_us Nullable(Int64) COMMENT 'latency by the raw monotonic clock',
    sent_us Nullable(Int64) COMMENT 'agent time of the sending',
    last Nullable(Bool) COMMENT 'the coordinated final probe (field final)',
    cause LowCardinality(Nullable(String)) COMMENT 'cause of a failure',
    origin LowCardinality(Nullable(String)) COMMENT 'origin as the agent saw it',
    status Nullable(Int64) COMMENT 'status of the vendor',
    message Nullable(String) COMMENT 'message of the vendor',
    intended_us Nullable(Int64) COMMENT 'agent time the create was due',
    provider_id Nullable(String) COMMENT 'the Provider''s name of the sandbox',
    reused Nullable(Bool) COMMENT 'on a warm connection',
    dns_us Nullable(Int64) COMMENT 'DNS time',
    connect_us Nullable(Int64) COMMENT 'connect time',
    tls_us Nullable(Int64) COMMENT 'TLS time',
    tti_us Nullable(Int64) COMMENT 'create sent to interactive',
    tries Nullable(Int64) COMMENT 'readiness tries',
    ticks Nullable(Int64) COMMENT 'witness ticks since its start',
    witness_ok Nullable(Bool) COMMENT 'the witness answered rightly',
    t1_us Nullable(Int64) COMMENT 'clock: agent sent',
    t2_us Nullable(Int64) COMMENT 'clock: site received',
    t3_us Nullable(Int64) COMMENT 'clock: site answered',
    clock_id LowCardinality(Nullable(String)) COMMENT 'clock that stamped t2 and t3',
    offset_us Nullable(Int64) COMMENT 'Run clock minus agent clock',
    half_rtt_us Nullable(Int64) COMMENT 'half the round trip',
    t0_us Nullable(Int64) COMMENT 'Run clock, of released',
    t_hold_us Nullable(Int64) COMMENT 'Run clock, of holding',
    t_end_us Nullable(Int64) COMMENT 'Run clock, of teardown',
    t_destroy_us Nullable(Int64) COMMENT 'Run clock, of teardown',
    autonomous Nullable(Bool) COMMENT 'torn down unheard',
    reason Nullable(String) COMMENT 'of agent_finished',
    orphans Nullable(Int64) COMMENT 'of agent_finished',
    connections Nullable(Int64) COMMENT 'warmed connections',
    host Nullable(String) COMMENT 'of agent_started',
    pid Nullable(Int64) COMMENT 'of agent_started',
    version Nullable(String) COMMENT 'of agent_started',
    cpu_count Nullable(Int64) COMMENT 'of agent_started',
    egress Nullable(String) COMMENT 'address class, of agent_started',
    cpu_pct Nullable(Float64) COMMENT 'health: of one core',
    steal_pct Nullable(Float64) COMMENT 'health: CPU steal',
    rss_bytes Nullable(Int64) COMMENT 'health: resident memory',
    loop_lag_us Nullable(Int64) COMMENT 'health: event-loop lag, max since the last',
    open_fds Nullable(Int64) COMMENT 'health: open files',
    in_flight Nullable(Int64) COMMENT 'health: requests in flight',
    alive Nullable(Int64) COMMENT 'health: Sandboxes held',
    queued_events Nullable(Int64) COMMENT 'health: events not yet stored',
    dropped_events Nullable(Int64) COMMENT 'health: events dropped',
    cpus Nullable(Float64) COMMENT 'of observed: processors',
    memory_bytes Nullable(Int64) COMMENT 'of observed: memory'
) ENGINE = ReplacingMergeTree PARTITION BY run
ORDER BY (run, shard, attempt, n, seq, line);

CREATE TABLE {prefix}defects (
    run String COMMENT 'public code of the Run',
    key String COMMENT 'object key',
    line UInt32 COMMENT '1-based; 0 is the whole object',
    reason LowCardinality(String) COMMENT 'why it was set aside',
    shard UInt32 COMMENT 'from the key',
    attempt UInt32 COMMENT 'from the key',
    detail String COMMENT 'the beginning of the line, or the error'
) ENGINE = ReplacingMergeTree PARTITION BY run ORDER BY (run, key, line, reason);

CREATE TABLE {prefix}log_lines (
    run String COMMENT 'public code of the Run',
    shard UInt32 COMMENT 'from the key',
    attempt UInt32 COMMENT 'from the key',
    number UInt64 COMMENT 'line number of the whole log, 0-based, the same for ever',
    at_us Nullable(Int64) COMMENT 'agent time',
    level LowCardinality(Nullable(String)) COMMENT 'level',
    text String COMMENT 'what was said; the whole line where it has no format'
) ENGINE = ReplacingMergeTree PARTITION BY run
ORDER BY (run, shard, attempt, number);

CREATE TABLE {prefix}journal (
    run String COMMENT 'public code of the Run',
    seq UInt32 COMMENT 'segment',
    line UInt32 COMMENT '1-based line',
    kind LowCardinality(String) COMMENT 'kind of fact',
    at_us Int64 COMMENT 'Run clock',
    text String COMMENT 'the whole line'
) ENGINE = ReplacingMergeTree PARTITION BY run ORDER BY (run, seq, line);

CREATE TABLE {prefix}truth (
    run String COMMENT 'public code of the Run',
    seq UInt32 COMMENT 'segment',
    line UInt32 COMMENT '1-based line',
    sandbox Nullable(UInt32) COMMENT 'global index, where the world was told',
    provider_id Nullable(String) COMMENT 'the world''s name of it',
    answer String COMMENT 'field create: how the create ended',
    asked_us Nullable(Int64) COMMENT 'Run clock: create received',
    alive_from_us Nullable(Int64) COMMENT 'Run clock: began to live',
    alive_to_us Nullable(Int64) COMMENT 'Run clock: ended; null is never',
    interactive Bool COMMENT 'ever answered a command rightly',
    asleep Array(Tuple(Int64, Int64)) COMMENT 'Run clock: when suspended',
    ending Nullable(String) COMMENT 'field end: how it ended',
    create_us Nullable(Int64) COMMENT 'true latency of the create',
    ready_us Nullable(Int64) COMMENT 'true latency to readiness'
) ENGINE = ReplacingMergeTree PARTITION BY run ORDER BY (run, seq, line);

CREATE MATERIALIZED VIEW {prefix}to_segments TO {prefix}segments AS
SELECT run, key, type, shard, attempt, seq, lines, bytes
FROM {prefix}incoming WHERE line = 0;

CREATE MATERIALIZED VIEW {prefix}to_parsed TO {prefix}parsed AS
WITH
    ['agent_started', 'clock', 'armed', 'released', 'health', 'settled', 'holding',
     'teardown', 'agent_finished'] AS of_shard,
    ['create_sent', 'created', 'create_failed', 'ready_probe_failed', 'ready',
     'witness_started', 'readiness_failed', 'probe_ok', 'probe_failed', 'dead',
     'destroy_sent', 'destroyed', 'destroy_failed', 'orphaned'] AS of_sandbox,
    ['create_failed', 'ready_probe_failed', 'readiness_failed', 'probe_failed', 'dead',
     'destroy_failed'] AS failures,
    ['probe_ok', 'probe_failed', 'ready_probe_failed'] AS probes,
    ['created', 'create_failed', 'ready_probe_failed', 'ready', 'witness_started',
     'readiness_failed', 'probe_ok', 'probe_failed', 'destroyed', 'destroy_failed'] AS timed,
    2000000000000000000 AS instant_max, -- sums of a few must fit 64 bits
    ['Int64', 'UInt64'] AS whole,
    -- What agents write in nearly every line: one look sees that what is required is
    -- there and of its type. All other lines go through every check below.
    match(text, '^\\{"v":1,"n":\\d{1,18},"at":\\d{1,18},"kind":"(?:(?:clock|health|settled|armed|released|holding|teardown)"[,}]|(?:create_sent|destroy_sent)","sandbox":\\d{1,9}[,}]|probe_ok","sandbox":\\d{1,9},"latency_us":\\d{1,18},"sent_us":\\d{1,18},"final":(?:true|false)[,}]|(?:ready|witness_started|destroyed)","sandbox":\\d{1,9},"latency_us":\\d{1,18}[,}]|created","sandbox":\\d{1,9},"provider_id":"[^"\\\\]{0,200}","latency_us":\\d{1,18}[,}])')
        AS usual,
    JSONExtract(text, 'Tuple(v Nullable(Int64), n Nullable(Int64), at Nullable(Int64), kind Nullable(String), sandbox Nullable(Int64), latency_us Nullable(Int64), sent_us Nullable(Int64), final Nullable(Bool), cause Nullable(String), origin Nullable(String), intended_us Nullable(Int64), provider_id Nullable(String), reused Nullable(Bool), dns_us Nullable(Int64), connect_us Nullable(Int64), tls_us Nullable(Int64), status Nullable(Int64), message Nullable(String), tti_us Nullable(Int64), tries Nullable(Int64), ticks Nullable(Int64), witness_ok Nullable(Bool), t1_us Nullable(Int64), t2_us Nullable(Int64), t3_us Nullable(Int64), clock_id Nullable(String), offset_us Nullable(Int64), half_rtt_us Nullable(Int64), t0_us Nullable(Int64), t_hold_us Nullable(Int64), t_end_us Nullable(Int64), t_destroy_us Nullable(Int64), autonomous Nullable(Bool), reason Nullable(String), orphans Nullable(Int64), connections Nullable(Int64), host Nullable(String), pid Nullable(Int64), version Nullable(String), cpu_count Nullable(Int64), egress Nullable(String), cpu_pct Nullable(Float64), steal_pct Nullable(Float64), rss_bytes Nullable(Int64), loop_lag_us Nullable(Int64), open_fds Nullable(Int64), in_flight Nullable(Int64), alive Nullable(Int64), queued_events Nullable(Int64), dropped_events Nullable(Int64), cpus Nullable(Float64), memory_bytes Nullable(Int64))') AS j
SELECT
    run, key, shard, attempt, seq, line, text,
    j.n AS n,
    j.at AS at_us,
    j.kind AS kind,
    has(of_shard, ifNull(kind, '')) OR has(of_sandbox, ifNull(kind, '')) AS known,
    j.sandbox AS sandbox,
    j.latency_us AS latency_us,
    j.sent_us AS sent_us,
    j.final AS last,
    j.cause AS cause,
    j.origin AS origin,
    if(usual AND ifNull(
        j.v = 1 AND n >= 0 AND abs(at_us) <= instant_max AND known AND shard < shard_count
        AND NOT has(failures, kind)
        AND (NOT has(of_sandbox, kind) OR (sandbox >= 0 AND intDiv(sandbox, per_shard) = shard AND sandbox < sandbox_count))
        AND (NOT has(timed, kind) OR latency_us IS NOT NULL)
        AND (NOT has(probes, kind) OR (abs(sent_us) <= instant_max AND last IS NOT NULL)),
        false), '', multiIf(
        JSONType(text) != 'Object', if(line = lines AND NOT ended, 'truncated', 'not_json'),
        NOT has(whole, toString(JSONType(text, 'v'))) OR ifNull(j.v, 0) != 1, 'field:v',
        NOT has(whole, toString(JSONType(text, 'n'))) OR ifNull(n, -1) < 0, 'field:n',
        NOT has(whole, toString(JSONType(text, 'at'))) OR at_us IS NULL OR abs(at_us) > instant_max, 'field:at',
        JSONType(text, 'kind') != 'String' OR ifNull(kind, '') = '', 'field:kind',
        NOT known, if(shard >= shard_count, 'foreign', ''),
        has(of_sandbox, kind) AND (NOT has(whole, toString(JSONType(text, 'sandbox'))) OR ifNull(sandbox, -1) < 0), 'field:sandbox',
        has(failures, kind) AND JSONType(text, 'cause') != 'String', 'field:cause',
        has(failures, kind) AND kind != 'destroy_failed' AND JSONType(text, 'origin') != 'String', 'field:origin',
        has(probes, kind) AND (NOT has(whole, toString(JSONType(text, 'sent_us'))) OR sent_us IS NULL OR abs(sent_us) > instant_max), 'field:sent_us',
        has(probes, kind) AND kind != 'ready_probe_failed' AND JSONType(text, 'final') != 'Bool', 'field:final',
        has(timed, kind) AND (NOT has(whole, toString(JSONType(text, 'latency_us'))) OR latency_us IS NULL), 'field:latency_us',
        shard >= shard_count, 'foreign',
        has(of_sandbox, kind) AND (intDiv(sandbox, per_shard) != shard OR sandbox >= sandbox_count), 'foreign',
        '')) AS why,
    j
FROM {prefix}incoming WHERE type = 'events' AND line > 0;

CREATE MATERIALIZED VIEW {prefix}to_events TO {prefix}events AS
-- JSONExtract makes 1 of 1.5, of "1" and of true: what judges must be of its own type.
WITH ['Int64', 'UInt64'] AS whole, 2000000000000000000 AS instant_max
SELECT
    run, shard, attempt, assumeNotNull(n) AS n, seq, line,
    sipHash64(text) AS content, assumeNotNull(kind) AS kind,
    known AND why = '' AS judged, assumeNotNull(at_us) AS at_us,
    if(known AND why = '', sandbox, NULL) AS sandbox,
    latency_us, sent_us, last, cause, origin,
    j.status AS status, substringUTF8(j.message, 1, 500) AS message,
    if(isNotNull(j.intended_us) AND abs(j.intended_us) <= instant_max AND has(whole, toString(JSONType(text, 'intended_us'))), j.intended_us, NULL) AS intended_us,
    j.provider_id AS provider_id, j.reused AS reused,
    j.dns_us AS dns_us, j.connect_us AS connect_us, j.tls_us AS tls_us,
    if(isNotNull(j.tti_us) AND has(whole, toString(JSONType(text, 'tti_us'))), j.tti_us, NULL) AS tti_us,
    j.tries AS tries,
    if(isNotNull(j.ticks) AND has(whole, toString(JSONType(text, 'ticks'))), j.ticks, NULL) AS ticks,
    if(isNotNull(j.witness_ok) AND JSONType(text, 'witness_ok') = 'Bool', j.witness_ok, NULL) AS witness_ok,
    if(isNotNull(j.t1_us) AND abs(j.t1_us) <= instant_max AND has(whole, toString(JSONType(text, 't1_us'))), j.t1_us, NULL) AS t1_us,
    if(isNotNull(j.t2_us) AND abs(j.t2_us) <= instant_max AND has(whole, toString(JSONType(text, 't2_us'))), j.t2_us, NULL) AS t2_us,
    if(isNotNull(j.t3_us) AND abs(j.t3_us) <= instant_max AND has(whole, toString(JSONType(text, 't3_us'))), j.t3_us, NULL) AS t3_us,
    if(isNotNull(j.clock_id) AND JSONType(text, 'clock_id') = 'String', j.clock_id, NULL) AS clock_id,
    if(isNotNull(j.offset_us) AND abs(j.offset_us) <= instant_max AND has(whole, toString(JSONType(text, 'offset_us'))), j.offset_us, NULL) AS offset_us,
    if(isNotNull(j.half_rtt_us) AND abs(j.half_rtt_us) <= instant_max AND has(whole, toString(JSONType(text, 'half_rtt_us'))), j.half_rtt_us, NULL) AS half_rtt_us,
    if(isNotNull(j.t0_us) AND abs(j.t0_us) <= instant_max AND has(whole, toString(JSONType(text, 't0_us'))), j.t0_us, NULL) AS t0_us,
    if(isNotNull(j.t_hold_us) AND abs(j.t_hold_us) <= instant_max AND has(whole, toString(JSONType(text, 't_hold_us'))), j.t_hold_us, NULL) AS t_hold_us,
    if(isNotNull(j.t_end_us) AND abs(j.t_end_us) <= instant_max AND has(whole, toString(JSONType(text, 't_end_us'))), j.t_end_us, NULL) AS t_end_us,
    if(isNotNull(j.t_destroy_us) AND abs(j.t_destroy_us) <= instant_max AND has(whole, toString(JSONType(text, 't_destroy_us'))), j.t_destroy_us, NULL) AS t_destroy_us,
    j.autonomous AS autonomous, j.reason AS reason, j.orphans AS orphans,
    j.connections AS connections, j.host AS host, j.pid AS pid, j.version AS version,
    j.cpu_count AS cpu_count, j.egress AS egress, j.cpu_pct AS cpu_pct,
    j.steal_pct AS steal_pct, j.rss_bytes AS rss_bytes, j.loop_lag_us AS loop_lag_us,
    j.open_fds AS open_fds, j.in_flight AS in_flight, j.alive AS alive,
    j.queued_events AS queued_events, j.dropped_events AS dropped_events,
    j.cpus AS cpus, j.memory_bytes AS memory_bytes
FROM {prefix}parsed WHERE why IN ('', 'foreign');

CREATE MATERIALIZED VIEW {prefix}to_defects TO {prefix}defects AS
SELECT run, key, line, why AS reason, shard, attempt, toValidUTF8(substring(text, 1, 200)) AS detail
FROM {prefix}parsed WHERE why != '';

CREATE MATERIALIZED VIEW {prefix}to_notes_defects TO {prefix}defects AS
SELECT run, key, line,
    if(line = lines AND NOT ended, 'truncated', 'not_json') AS reason, shard, attempt,
    toValidUTF8(substring(text, 1, 200)) AS detail
FROM {prefix}incoming
WHERE type IN ('journal', 'truth') AND line > 0 AND JSONType(text) != 'Object';

CREATE MATERIALIZED VIEW {prefix}to_journal TO {prefix}journal AS
SELECT run, seq, line, JSONExtractString(text, 'kind') AS kind,
    JSONExtractInt(text, 'at_us') AS at_us, text
FROM {prefix}incoming
WHERE type = 'journal' AND line > 0 AND JSONType(text) = 'Object';

CREATE MATERIALIZED VIEW {prefix}to_truth TO {prefix}truth AS
WITH JSONExtract(text, 'Tuple(sandbox Nullable(UInt32), provider_id Nullable(String), create String, asked_us Nullable(Int64), alive_from_us Nullable(Int64), alive_to_us Nullable(Int64), interactive Bool, asleep Array(Tuple(Int64, Int64)), end Nullable(String), create_us Nullable(Int64), ready_us Nullable(Int64))') AS t
SELECT run, seq, line, t.sandbox AS sandbox, t.provider_id AS provider_id,
    t.create AS answer, t.asked_us AS asked_us, t.alive_from_us AS alive_from_us,
    t.alive_to_us AS alive_to_us, t.interactive AS interactive, t.asleep AS asleep,
    t.end AS ending, t.create_us AS create_us, t.ready_us AS ready_us
FROM {prefix}incoming
WHERE type = 'truth' AND line > 0 AND JSONType(text) = 'Object';

CREATE MATERIALIZED VIEW {prefix}to_log_lines TO {prefix}log_lines AS
SELECT run, shard, attempt, first_line + line - 1 - header AS number,
    if(notEmpty(g), toInt64OrNull(g[1]), NULL) AS at_us,
    if(notEmpty(g), g[2], NULL) AS level,
    toValidUTF8(if(notEmpty(g), g[3], text)) AS text
FROM (
    SELECT *, extractGroups(text, '(?s)^(\\d{1,18}) ([A-Z]+) (.*)$') AS g
    FROM {prefix}incoming
    WHERE type = 'log' AND line > 0 AND NOT (header AND line = 1)
);
