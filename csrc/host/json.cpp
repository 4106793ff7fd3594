#include "json.h"

#include <cmath>
#include <locale>
#include <map>
#include <sstream>

#include "error.h"

namespace dtg::host {

namespace {
constexpr int kDeepest = 64;  // levels of nesting: a damaged file must not overflow the stack
}

class JsonParser {
  public:
    explicit JsonParser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = this->value(0);
        skip_space();
        if (place_ != text_.size()) fail("something follows the value");
        return value;
    }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        engine_error("invalid JSON at byte " + std::to_string(place_) + ": " + what);
    }

    char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }

    void skip_space() {
        while (place_ < text_.size() && std::string_view(" \t\r\n").find(text_[place_]) !=
                                            std::string_view::npos) {
            ++place_;
        }
    }

    bool take(char c) {
        if (peek() != c || place_ >= text_.size()) return false;
        ++place_;
        return true;
    }

    void expect(char c) {
        if (!take(c)) fail(std::string("'") + c + "' is expected");
    }

    void word(std::string_view letters) {
        if (text_.substr(place_, letters.size()) != letters) fail("unknown word");
        place_ += letters.size();
    }

    Json value(int depth) {
        if (depth > kDeepest) fail("nested too deeply");
        skip_space();
        Json made;
        switch (peek()) {
            case '{':
                object(made, depth);
                break;
            case '[':
                array(made, depth);
                break;
            case '"':
                made.kind_ = Json::Kind::kString;
                made.string_ = string();
                break;
            case 't':
            case 'f':
                made.kind_ = Json::Kind::kBool;
                made.bool_ = peek() == 't';
                word(made.bool_ ? "true" : "false");
                break;
            case 'n':
                word("null");
                break;
            default:
                number(made);
        }
        return made;
    }

    void object(Json& made, int depth) {
        made.kind_ = Json::Kind::kObject;
        expect('{');
        skip_space();
        if (take('}')) return;
        do {
            skip_space();
            std::string name = string();
            if (made.find(name)) fail("the name " + name + " comes twice");
            skip_space();
            expect(':');
            made.members_.emplace_back(std::move(name), value(depth + 1));
            skip_space();
        } while (take(','));
        expect('}');
    }

    void array(Json& made, int depth) {
        made.kind_ = Json::Kind::kArray;
        expect('[');
        skip_space();
        if (take(']')) return;
        do {
            made.array_.push_back(value(depth + 1));
            skip_space();
        } while (take(','));
        expect(']');
    }

    std::string string() {
        expect('"');
        std::string made;
        for (;;) {
            if (place_ >= text_.size()) fail("a string does not end");
            const char c = text_[place_++];
            if (c == '"') return made;
            if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
            if (c == '\\') {
                escape(made);
            } else {
                made += c;
            }
        }
    }

    void escape(std::string& made) {
        static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
        const char c = peek();
        ++place_;
        if (c == 'u') return utf8(made, code_point());
        const auto i = kNames.find(c);
        if (i == std::string_view::npos) fail("unknown escape");
        made += kValues[i];
    }

    std::uint32_t hex4() {
        std::uint32_t code = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = peek();
            const auto digit = std::string_view("0123456789abcdef").find(c | 0x20);
            if (digit == std::string_view::npos || (c < '0')) fail("four hexadecimal digits");
            code = 16 * code + static_cast<std::uint32_t>(digit);
            ++place_;
        }
        return code;
    }

    std::uint32_t code_point() {
        const std::uint32_t high = hex4();
        if (high < 0xd800 || high > 0xdfff) return high;
        if (high > 0xdbff || !take('\\') || !take('u')) fail("half of a surrogate pair");
        const std::uint32_t low = hex4();
        if (low < 0xdc00 || low > 0xdfff) fail("half of a surrogate pair");
        return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }

    static void utf8(std::string& made, std::uint32_t code) {
        const auto put = [&](std::uint32_t byte) { made += static_cast<char>(byte); };
        if (code < 0x80) return put(code);
        if (code < 0x800) {
            put(0xc0 | code >> 6);
        } else {
            if (code < 0x10000) {
                put(0xe0 | code >> 12);
            } else {
                put(0xf0 | code >> 18);
                put(0x80 | (code >> 12 & 0x3f));
            }
            put(0x80 | (code >> 6 & 0x3f));
        }
        put(0x80 | (code & 0x3f));
    }

    bool digits() {
        const std::size_t first = place_;
        while (peek() >= '0' && peek() <= '9') ++place_;
        return place_ > first;
    }

    void number(Json& made) {
        const std::size_t first = place_;
        take('-');
        const std::size_t leading = place_;
        if (!digits()) fail("a value is expected");
        if (text_[leading] == '0' && place_ > leading + 1) fail("a number begins with 0");
        if (take('.')) {
            if (!digits()) fail("a digit is expected");
        }
        if (peek() == 'e' || peek() == 'E') {
            ++place_;
            if (!take('-')) take('+');
            if (!digits()) fail("a digit is expected");
        }
        made.kind_ = Json::Kind::kNumber;
        // Not strtod, which follows the locale of the host program.
        made.string_ = text_.substr(first, place_ - first);
        std::istringstream text(made.string_);
        text.imbue(std::locale::classic());
        text >> made.number_;
        if (!text || !std::isfinite(made.number_)) fail("a number is out of range");
    }

    std::string_view text_;
    std::size_t place_ = 0;
};

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

void Json::require(Kind kind, const char* wanted) const {
    if (kind_ != kind) engine_error(std::string("the JSON value is not ") + wanted);
}

bool Json::boolean() const {
    require(Kind::kBool, "true or false");
    return bool_;
}

double Json::number() const {
    require(Kind::kNumber, "a number");
    return number_;
}

std::int64_t Json::integer() const {
    require(Kind::kNumber, "a number");
    const bool whole = string_.find_first_of(".eE") == std::string::npos;
    if (!whole || std::abs(number_) >= 0x1p63) engine_error(string_ + " is not a whole number");
    return std::stoll(string_);
}

const std::string& Json::string() const {
    require(Kind::kString, "a string");
    return string_;
}

const std::vector<Json>& Json::array() const {
    require(Kind::kArray, "an array");
    return array_;
}

const Json::Members& Json::object() const {
    require(Kind::kObject, "an object");
    return members_;
}

const Json* Json::find(std::string_view name) const {
    for (const auto& [key, value] : object()) {
        if (key == name) return &value;
    }
    return nullptr;
}

const Json& Json::at(std::string_view name) const {
    const Json* found = find(name);
    if (!found) engine_error("there is no \"" + std::string(name) + "\"");
    return *found;
}

namespace {

void write_escaped(std::string& out, std::uint32_t unit) {
    static constexpr char kHex[] = "0123456789abcdef";
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += kHex[unit >> shift & 15];
}

// In ASCII, as Python writes it; `text` is UTF-8.
void write_string(std::string& out, const std::string& text) {
    out += '"';
    for (std::size_t i = 0; i < text.size();) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const int length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
        if (length == 1) {
            const auto named = std::string_view("\"\\\b\f\n\r\t").find(text[i]);
            if (named != std::string_view::npos) {
                out += '\\';
                out += "\"\\bfnrt"[named];
            } else if (byte < 0x20) {
                write_escaped(out, byte);
            } else {
                out += text[i];
            }
        } else {
            std::uint32_t code = byte & (0xffu >> (length + 1));
            for (int k = 1; k < length && i + k < text.size(); ++k) {
                code = code << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fu);
            }
            if (code >= 0x10000) {
                write_escaped(out, 0xd800 + ((code - 0x10000) >> 10));
                code = 0xdc00 + ((code - 0x10000) & 0x3ff);
            }
            write_escaped(out, code);
        }
        i += static_cast<std::size_t>(length);
    }
    out += '"';
}

}  // namespace

void Json::write(std::string& out) const {
    const char* between = "";
    switch (kind_) {
        case Kind::kNull:
            out += "null";
            break;
        case Kind::kBool:
            out += bool_ ? "true" : "false";
            break;
        case Kind::kNumber:
            out += string_;
            break;
        case Kind::kString:
            write_string(out, string_);
            break;
        case Kind::kArray:
            out += '[';
            for (const Json& value : array_) {
                out += between;
                value.write(out);
                between = ", ";
            }
            out += ']';
            break;
        case Kind::kObject:
            out += canonical("");
    }
}

std::string Json::canonical(std::string_view left_out) const {
    std::map<std::string_view, const Json*> sorted;
    for (const auto& [name, value] : object()) sorted[name] = &value;
    std::string out = "{";
    for (const auto& [name, value] : sorted) {
        if (!left_out.empty() && name == left_out) continue;
        if (out.size() > 1) out += ", ";
        write_string(out, std::string(name));
        out += ": ";
        value->write(out);
    }
    return out + "}";
}

std::vector<double> Json::numbers() const {
    std::vector<double> made;
    for (const Json& value : array()) made.push_back(value.number());
    return made;
}

std::vector<std::int64_t> Json::integers() const {
    std::vector<std::int64_t> made;
    for (const Json& value : array()) made.push_back(value.integer());
    return made;
}

}  // namespace dtg::host
