/* A small engine: requests that come over time are answered side by side, by a transformer whose
 * weights are drawn here. Every step is one batch: chunks of prompts, single tokens, and drafts
 * that are checked as they are written. Keys and values lie in pages; prompts that begin alike
 * share them; where pages run out, the youngest gives way and is computed anew. Some answers keep
 * to a JSON schema. Then each request is answered alone, without drafts, and must get the same.
 *
 *     c++ -std=c++17 -O2 examples/cpp/engine.cpp $(pkg-config --cflags --libs pagewise) -o engine
 */
#include "decoder.hpp"
#include <chrono>
#include <cstdio>
#include <deque>
#include <string>

namespace {

// ---- the engine ----------------------------------------------------------------------------

struct Request {
    uint32_t arrives; // the step
    std::string prompt;
    const char *schema; // nullptr: any printable text
    uint32_t answer_max;
    float temperature;
};

struct Sequence {
    uint32_t id;
    const Request *request;
    std::vector<uint32_t> tokens; // of the prompt, and what was answered
    Matcher matcher;
    Table table;
    uint64_t written = 0; // while it runs: tokens whose keys and values are in the table's pages
    uint32_t rows = 0;    // of this step, beside drafts
    std::vector<uint32_t> drafts;
    uint32_t pages_reused = 0, drafts_accepted = 0, gave_way = 0;

    size_t answered() const { return tokens.size() - request->prompt.size(); }
    bool ended() const { return answered() >= request->answer_max || tokens.back() == END; }
    bool answers() const { return rows > 0 && written + rows == tokens.size(); } // in this step
    std::string text() const {
        const auto last = tokens.end() - (tokens.back() == END);
        return {tokens.begin() + static_cast<std::ptrdiff_t>(request->prompt.size()), last};
    }
};

struct Settings {
    uint32_t pages, seqs;
    uint32_t drafts_max; // 0: none
    bool share_prefixes;
};

class Engine {
  public:
    Engine(const Device &device, const Model &model, const Grammars &grammars, Settings given)
        : settings(given), pages(create<Pages>(pw_pages_create, given.pages, PAGE)),
          prefixes(create<Prefixes>(pw_prefixes_create, pages.get())), vocabulary(grammars.get()),
          masker(create<Masker>(pw_masker_create, 2u)), decoder(device, model, given.pages, given.seqs),
          logit_mask(device, [](auto &d) {
              d.rows_max = ROWS, d.vocab = VOCAB, d.row_stride = VOCAB * FLOAT;
              d.masks = ROWS + 1, d.mask_words = WORDS;
          }),
          sample(device, [](auto &d) { d.rows_max = ROWS, d.vocab = VOCAB, d.row_stride = VOCAB * FLOAT; }),
          spec_verify(device, [&](auto &d) {
              d.seqs_max = given.seqs, d.nodes_max = ROWS, d.vocab = VOCAB, d.mode = PW_VERIFY_TOKENS;
          }) {
        for (uint32_t token = ' '; token <= '~'; token++) masks[token / 32] |= 1u << token % 32;
    }

    /* Answers all of them, in order of id. */
    std::vector<Sequence> run(const std::vector<Request> &requests) {
        for (uint32_t id = 0; id < requests.size(); id++) waiting.push_back(begin(id, requests[id]));
        for (uint32_t now = 0; done.size() < requests.size(); now++) {
            admit(now);
            schedule();
            if (!running.empty()) step();
            else if (waiting.front().request->arrives <= now) throw Failure("there are too few pages for a request");
        }
        std::sort(done.begin(), done.end(), [](const Sequence &a, const Sequence &b) { return a.id < b.id; });
        return std::move(done);
    }

    /* Whether nobody holds a page once prefixes are forgotten. */
    bool all_free() {
        call(pw_prefixes_forget, prefixes.get(), &scope, 0u);
        return count().free == settings.pages;
    }

  private:
    Sequence begin(uint32_t id, const Request &request) {
        Sequence begun{};
        begun.id = id;
        begun.request = &request;
        for (const char byte : request.prompt) begun.tokens.push_back(static_cast<uint8_t>(byte));
        if (request.schema)
            begun.matcher = create<Matcher>(pw_matcher_create, vocabulary, PW_SOURCE_COMPACT, request.schema,
                                            std::char_traits<char>::length(request.schema));
        return begun;
    }

    pw_pages_state count() {
        auto state = make<pw_pages_state>([](auto &) {});
        call(pw_pages_count, pages.get(), &state);
        return state;
    }

    /* Lets in who has come, in order, while there are pages for what it has so far. */
    void admit(uint32_t now) {
        while (!waiting.empty() && waiting.front().request->arrives <= now && running.size() < settings.seqs) {
            Sequence &next = waiting.front();
            const pw_pages_state state = count();
            if (state.free + state.idle < next.tokens.size() / PAGE + 1) break;
            if (settings.share_prefixes) {
                pw_table *found = nullptr;
                // Not the last: its logits are wanted.
                const uint32_t known = static_cast<uint32_t>(next.tokens.size()) - 1;
                call(pw_prefixes_find, prefixes.get(), &scope, next.tokens.data(), known, &found, nullptr);
                next.table = Table(found);
            } else {
                next.table = create<Table>(pw_table_create, pages.get());
            }
            const pw_table_state has = state_of(next);
            next.written = has.tokens;
            next.pages_reused += has.pages;
            running.push_back(std::move(next));
            waiting.pop_front();
        }
    }

    pw_table_state state_of(const Sequence &sequence) {
        auto state = make<pw_table_state>([](auto &) {});
        call(pw_table_count, sequence.table.get(), &state);
        return state;
    }

    /* Shares out the rows of a step, the oldest first, and sees to room for them. */
    void schedule() {
        size_t left = ROWS;
        for (size_t at = 0; at < running.size(); at++) {
            Sequence &sequence = running[at];
            const size_t pending = sequence.tokens.size() - sequence.written;
            sequence.rows = static_cast<uint32_t>(std::min(pending, left));
            left -= sequence.rows;
            sequence.drafts.clear();
            if (sequence.answers()) draft(sequence, left);
            left -= sequence.drafts.size();
            if (!grow(sequence)) give_way();
        }
    }

    /* Tokens that may well come: those that alone may, or what came after the same two before. */
    void draft(Sequence &sequence, size_t left) {
        const size_t last = sequence.request->answer_max - sequence.answered() - 1;
        const uint32_t most = static_cast<uint32_t>(std::min({size_t{settings.drafts_max}, left, last}));
        const std::vector<uint32_t> &tokens = sequence.tokens;
        if (most == 0) return;
        if (sequence.matcher) {
            uint32_t forced = 0;
            sequence.drafts.resize(most);
            call(pw_matcher_forced, sequence.matcher.get(), sequence.drafts.data(), most, &forced);
            sequence.drafts.resize(forced);
            // Once a text has ended, its end is all that may come, again and again.
            const auto end = std::find(sequence.drafts.begin(), sequence.drafts.end(), END);
            sequence.drafts.erase(end, sequence.drafts.end());
            return;
        }
        const auto pair = std::find_end(tokens.begin(), tokens.end() - 1, tokens.end() - 2, tokens.end());
        if (pair == tokens.end() - 1) return;
        sequence.drafts.assign(pair + 2, pair + 2 + std::min<std::ptrdiff_t>(most, tokens.end() - pair - 2));
    }

    /* Room for the step's rows of a sequence; if need be, of prefixes and of those after it. */
    bool grow(const Sequence &sequence) {
        for (;;) {
            uint32_t entry[5], copied = 0, freed = 0;
            pw_error error = no_error();
            const uint64_t more = sequence.rows + sequence.drafts.size();
            const pw_status status = pw_table_grow(sequence.table.get(), more, entry, &copied, &error);
            if (status != PW_E_PAGES) {
                check(status, error);
                // Full pages alone are shared here, and nothing is written to them.
                if (copied) throw Failure("a page that is written to was shared");
                return true;
            }
            call(pw_prefixes_evict, prefixes.get(), static_cast<uint32_t>(error.expected - error.got), &freed);
            if (freed > 0) continue;
            if (&running.back() == &sequence) return false;
            give_way();
        }
    }

    /* The youngest lets go of its pages, and is the next to be let in. */
    void give_way() {
        Sequence &youngest = running.back();
        youngest.table.reset();
        youngest.gave_way++;
        waiting.push_front(std::move(youngest));
        running.pop_back();
    }

    void step() {
        Batch batch;
        for (const Sequence &sequence : running) add(batch, sequence);
        std::vector<float> logits = decoder.run(batch);
        if (!batch.wanted.empty()) choose(batch, logits);
        size_t seq = 0;
        for (Sequence &sequence : running) {
            const bool first = sequence.answered() == 0, answers = sequence.answers();
            if (answers) take(sequence, seq++);
            else sequence.written += sequence.rows;
            if (answers && settings.share_prefixes && (first || sequence.ended())) publish(sequence);
        }
        for (Sequence &sequence : running)
            if (sequence.ended()) {
                sequence.table.reset();
                done.push_back(std::move(sequence));
            }
        const auto gone = [](const Sequence &sequence) { return !sequence.table; };
        running.erase(std::remove_if(running.begin(), running.end(), gone), running.end());
    }

    void add(Batch &batch, const Sequence &sequence) {
        if (sequence.rows == 0) return;
        const auto next = sequence.tokens.begin() + static_cast<std::ptrdiff_t>(sequence.written);
        const uint32_t count = sequence.rows + static_cast<uint32_t>(sequence.drafts.size());
        const pw_table_state table = state_of(sequence);
        if (sequence.answers())
            for (size_t node = 0; node <= sequence.drafts.size(); node++)
                batch.wanted.push_back(static_cast<uint32_t>(batch.tokens.size() + sequence.rows - 1 + node));
        batch.tokens.insert(batch.tokens.end(), next, next + sequence.rows);
        batch.tokens.insert(batch.tokens.end(), sequence.drafts.begin(), sequence.drafts.end());
        batch.row_start.push_back(static_cast<uint32_t>(batch.tokens.size()));
        batch.lengths.push_back(static_cast<uint32_t>(table.tokens));
        batch.page_ids.resize(batch.page_start.back() + table.pages);
        call(pw_table_ids, sequence.table.get(), 0u, table.pages, &batch.page_ids[batch.page_start.back()]);
        batch.page_start.push_back(static_cast<uint32_t>(batch.page_ids.size()));
        batch.slots.resize(2 * batch.tokens.size());
        uint32_t *slots = &batch.slots[batch.slots.size() - 2 * count];
        call(pw_table_slots, sequence.table.get(), sequence.written, count, slots);
    }

    /* Masks, samples and follows drafts. Rows and nodes are the same: a sequence's last token
     * that is certain, then its drafts. */
    void choose(const Batch &batch, std::vector<float> &logits) {
        const uint32_t rows = static_cast<uint32_t>(batch.wanted.size());
        std::vector<uint32_t> nodes, node_start{0};
        std::vector<pw_sample_row> how;
        for (const Sequence &sequence : running) {
            if (!sequence.answers()) continue;
            nodes.push_back(sequence.tokens.back());
            nodes.insert(nodes.end(), sequence.drafts.begin(), sequence.drafts.end());
            node_start.push_back(static_cast<uint32_t>(nodes.size()));
            for (size_t node = 0; node <= sequence.drafts.size(); node++)
                how.push_back({/* seed */ 40 + sequence.id, static_cast<uint32_t>(sequence.tokens.size() + node), 0,
                               sequence.request->temperature, /* top_k */ 0, /* top_p */ 1, /* min_p */ 0});
        }
        const std::vector<pw_logit_mask_row> allowed = mask_rows();
        const auto lens = make<pw_logit_mask_lens>([&](auto &l) { l.rows = rows; });
        logit_mask.plan(&lens);
        logit_mask.run([&](auto &a) {
            a.logits = logits.data(), a.settings = allowed.data(), a.masks = masks.data();
        });
        std::vector<uint32_t> sampled(rows), status(rows);
        sample.plan(rows);
        sample.run([&](auto &a) {
            a.logits = logits.data(), a.settings = how.data(), a.token = sampled.data(), a.status = status.data();
        });
        const uint32_t seqs = static_cast<uint32_t>(node_start.size()) - 1;
        path.resize(rows), accepted.resize(seqs), chosen.resize(seqs), status.resize(rows);
        spec_verify.plan(seqs, node_start.data());
        spec_verify.run([&](auto &a) {
            a.tokens = nodes.data(), a.sampled = sampled.data(), a.path = path.data();
            a.accepted = accepted.data(), a.next = chosen.data(), a.status = status.data();
        });
        for (uint32_t seq = 0; seq < seqs; seq++)
            if (status[seq] != PW_ROW_OK) throw Failure("a row of logits has no token");
    }

    /* Which mask each row has. The first is that of text; those of single rows of grammars
     * follow, computed side by side; then those of their drafts, each in one walk. */
    std::vector<pw_logit_mask_row> mask_rows() {
        std::vector<pw_matcher *> single;
        for (const Sequence &sequence : running)
            if (sequence.answers() && sequence.matcher && sequence.drafts.empty())
                single.push_back(sequence.matcher.get());
        std::vector<pw_status> statuses(single.size());
        const uint32_t count = static_cast<uint32_t>(single.size());
        call(pw_masker_masks, masker.get(), single.data(), count, 0u, &masks[WORDS], WORDS, statuses.data(),
             nullptr);
        for (const pw_status status : statuses)
            if (status != PW_OK) throw Failure("a mask was not computed");

        std::vector<pw_logit_mask_row> rows;
        uint32_t next_single = 1, next_tree = 1 + count;
        for (const Sequence &sequence : running) {
            if (!sequence.answers()) continue;
            const uint32_t drafts = static_cast<uint32_t>(sequence.drafts.size());
            uint32_t mask = 0;
            if (sequence.matcher && drafts == 0) mask = next_single++;
            if (sequence.matcher && drafts > 0) {
                std::vector<uint32_t> parents(drafts, PW_NONE);
                for (uint32_t node = 1; node < drafts; node++) parents[node] = node - 1;
                mask = next_tree;
                next_tree += drafts + 1;
                call(pw_matcher_tree_masks, sequence.matcher.get(), sequence.drafts.data(), parents.data(), drafts,
                     &masks[mask * WORDS], WORDS);
            }
            for (uint32_t node = 0; node <= drafts; node++)
                rows.push_back({mask + (sequence.matcher ? node : 0), PW_NONE, PW_NONE, 0, 1, 0, 0});
        }
        return rows;
    }

    /* The drafts that were followed and the token after them; other drafts' places are let go. */
    void take(Sequence &sequence, size_t seq) {
        const uint32_t drafts = accepted[seq] - 1;
        std::vector<uint32_t> taken(sequence.drafts.begin(), sequence.drafts.begin() + drafts);
        taken.push_back(chosen[seq]);
        sequence.written += sequence.rows + drafts;
        call(pw_table_shorten, sequence.table.get(), sequence.written);
        if (sequence.matcher)
            call(pw_matcher_accept, sequence.matcher.get(), taken.data(), static_cast<uint32_t>(taken.size()));
        sequence.tokens.insert(sequence.tokens.end(), taken.begin(), taken.end());
        sequence.drafts_accepted += drafts;
    }

    void publish(const Sequence &sequence) {
        uint32_t published = 0;
        const uint32_t written = static_cast<uint32_t>(sequence.written);
        call(pw_prefixes_publish, prefixes.get(), &scope, sequence.tokens.data(), written, sequence.table.get(),
             &published);
    }

    Settings settings;
    Pages pages;
    Prefixes prefixes;
    pw_grammars *vocabulary;
    Masker masker;
    Decoder decoder;
    LogitMask logit_mask;
    Sample sample;
    SpecVerify spec_verify;
    const pw_scope scope = make<pw_scope>([](auto &) {});
    std::vector<uint32_t> masks = std::vector<uint32_t>((ROWS + 1) * WORDS);
    std::vector<uint32_t> path, accepted, chosen; // what spec_verify said of the step
    std::deque<Sequence> waiting;
    std::vector<Sequence> running; // the oldest first
    std::vector<Sequence> done;
};

// ---- what is asked, and what must come of it ------------------------------------------------

Grammars vocabulary() {
    const std::string name = "<|end|>";
    std::vector<uint8_t> bytes(END);
    std::vector<uint64_t> starts(VOCAB + 1);
    for (uint32_t token = 0; token < END; token++) bytes[token] = static_cast<uint8_t>(token), starts[token] = token;
    bytes.insert(bytes.end(), name.begin(), name.end());
    starts[END] = END, starts[VOCAB] = bytes.size();
    const auto all = make<pw_vocabulary>([&](auto &v) {
        v.tokens = VOCAB, v.bytes = bytes.data(), v.starts = starts.data();
        v.special = v.ends = &END, v.special_count = v.end_count = 1;
    });
    return create<Grammars>(pw_grammars_create, &all, nullptr);
}

const char *const PERSON =
    R"({"type":"object","properties":{"name":{"type":"string","pattern":"^[a-z]{2,9}$"},)"
    R"("age":{"type":"integer","minimum":0,"maximum":120},"mood":{"enum":["calm","glad","loud"]}},)"
    R"("required":["name","age","mood"],"additionalProperties":false})";

bool is_person(const std::string &text) {
    char name[10], mood[5];
    unsigned age = 0;
    size_t end = 0;
    const char *shape = R"({"name":"%9[a-z]","age":%3u,"mood":"%4[a-z]"}%zn)";
    return std::sscanf(text.c_str(), shape, name, &age, mood, &end) == 3 && end == text.size() && name[1] != 0 &&
           age <= 120 && (mood == std::string("calm") || mood == std::string("glad") || mood == std::string("loud"));
}

std::vector<Request> requests() {
    const std::string begin = "You are a careful assistant, who answers in few words and never guesses. ";
    const std::string song = "row row row your boat, row row row your boat, row row ";
    return {{0, begin + "Sing: " + song, nullptr, 96, 0},
            {1, begin + "Who was it?", PERSON, 64, 1},
            {2, "Count: 1 2 3 1 2 3 1 2 3 1", nullptr, 96, 0.2f},
            {6, begin + "Name somebody else.", PERSON, 64, 1},
            {6, begin + "What is seen from the hill?", nullptr, 48, 1},
            {8, begin + "Sing on: " + song, nullptr, 96, 0.2f},
            {9, begin + "Who was it?", PERSON, 64, 0.5f},
            {12, begin, nullptr, 80, 0},
            {20, "No more.", PERSON, 64, 0},
            {24, begin + "Who is last?", PERSON, 64, 2}};
}

uint32_t failed = 0;

void claim(bool holds, const char *what) {
    std::printf("%s: %s\n", holds ? "ok" : "FAILED", what);
    failed += !holds;
}

std::vector<Sequence> timed(Engine &engine, const std::vector<Request> &asked, const char *how) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<Sequence> done = engine.run(asked);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    size_t tokens = 0;
    for (const Sequence &sequence : done) tokens += sequence.answered();
    const double a_second = static_cast<double>(tokens) / took.count();
    std::printf("%s: %zu tokens in %.2f s, %.0f tokens/s\n", how, tokens, took.count(), a_second);
    return done;
}

int run() {
    // A kernel of so small a model takes microseconds: others would take longer to wake.
    const auto options = make<pw_device_options>([](auto &o) { o.threads = 1; });
    const Device device = create<Device>(pw_device_open, "cpu", 3u, &options);
    const Grammars grammars = vocabulary();
    const Model model;
    const std::vector<Request> asked = requests();
    Engine engine(device, model, grammars, {/* pages */ 32, /* seqs */ 6, /* drafts_max */ 4, true});
    Engine plain(device, model, grammars, {64, 1, 0, /* share_prefixes */ false});
    const std::vector<Sequence> together = timed(engine, asked, "side by side");
    const std::vector<Sequence> alone = timed(plain, asked, "one by one");

    uint32_t reused = 0, accepted = 0, gave_way = 0;
    bool kept = true, same = true;
    for (const Sequence &sequence : together) {
        std::printf("%2u  %3zu tokens, %2u pages reused, %3u drafts accepted, gave way %u  %s\n", sequence.id,
                    sequence.answered(), sequence.pages_reused, sequence.drafts_accepted, sequence.gave_way,
                    sequence.text().c_str());
        reused += sequence.pages_reused, accepted += sequence.drafts_accepted, gave_way += sequence.gave_way;
        kept = kept && (!sequence.request->schema || is_person(sequence.text()));
        same = same && sequence.tokens == alone[sequence.id].tokens;
    }
    std::printf("%s\n", pw_device_numerics(device.get()));
    claim(kept, "answers that were to keep to the schema do");
    claim(same, "each request has the tokens that it has alone, without drafts and shared pages");
    claim(reused > 0, "pages of prompts were reused");
    claim(accepted > 0, "drafts were accepted");
    claim(gave_way > 0, "pages ran out, and who gave way was computed anew");
    claim(engine.all_free() && plain.all_free(), "all pages are free");
    return failed ? 1 : 0;
}

} // namespace

int main() {
    try {
        return run();
    } catch (const std::exception &failure) {
        std::fprintf(stderr, "%s\n", failure.what());
        return 1;
    }
}
